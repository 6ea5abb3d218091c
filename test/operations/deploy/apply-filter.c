/* apply-filter FILE COMMAND…: runs a command under a seccomp filter, as a container's runtime does.
 * apply-filter FILE --errno NUMBER…: says what calls of these numbers fail with under it; 0: they did not. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
  static struct sock_filter filter[4096];
  int file = open(argv[1], O_RDONLY);
  ssize_t bytes = read(file, filter, sizeof filter);
  close(file);
  if (argc < 3 || bytes <= 0) return 120;
  struct sock_fprog program = {.len = (unsigned short)(bytes / sizeof *filter), .filter = filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 121;
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return 122;
  if (strcmp(argv[2], "--errno") == 0) {
    for (int i = 3; i < argc; i++) {
      errno = 0;
      syscall(atol(argv[i]), -1, -1, -1, -1, -1, -1);
      printf("%d\n", errno);
    }
    return 0;
  }
  execvp(argv[2], argv + 2);
  return 123;
}
