# For the server's container, where AppArmor's default profile would forbid what builds the walls around a sandbox:
#   apparmor_parser -r deploy/apparmor.profile
# Mounts and namespaces are allowed, since the container itself has no capability and can make them in a user namespace of its own only;
# what the container runtime protects of /proc and /sys stays protected. Not run in this project's tests: no machine with AppArmor was there.
abi <abi/4.0>,
include <tunables/global>

profile pyodide-express flags=(attach_disconnected, mediate_deleted) {
  include <abstractions/base>

  userns,
  mount,
  umount,
  pivot_root,
  capability,
  file,
  network inet,
  network inet6,
  network unix,
  network netlink raw,
  signal (send, receive) peer=pyodide-express,
  # The container's runtime stops it.
  signal (receive) peer=unconfined,
  # /proc of its own sandboxes, for their processor time and what became of their walls.
  ptrace (read, readby) peer=pyodide-express,

  deny @{PROC}/sys/** w,
  deny @{PROC}/sysrq-trigger rwklx,
  deny @{PROC}/kcore rwklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
