import { describe, expect, test } from "vitest";
import { isAllowedAddress } from "./addresses.ts";

const PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8"];

const PRIVATE = [
  ...["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.255.0.1", "100.64.0.1"],
  ...["::1", "fd00::1", "fc00::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1"],
];

const NEVER = [
  // Link-local, and where clouds give out credentials.
  ...["169.254.169.254", "169.254.0.1", "fe80::1", "::ffff:169.254.169.254", "fd00:ec2::254", "100.100.100.200"],
  // This host, everybody, groups.
  ...["0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "239.255.255.255", "::", "ff02::1"],
  // Reserved: no host has them.
  ...["240.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.0.0.1", "2001:db8::1", "3fff::1"],
  // IPv4 in IPv6's clothes.
  ...["64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001::1", "::7f00:1"],
  ...["fec0::1", "100::1", "5f00::1", "4000::1"],
  ...["", "localhost", "1.2.3.4.5", "fe80::1%eth0", "1.2.3.4/8", "999.1.1.1"],
];

describe("isAllowedAddress", () => {
  test.each(PUBLIC)("%s is public", (address) => {
    expect(isAllowedAddress(address, { allowPrivate: false })).toBe(true);
    expect(isAllowedAddress(address, { allowPrivate: true })).toBe(true);
  });

  test.each(PRIVATE)("%s takes NETWORK_ALLOW_PRIVATE", (address) => {
    expect(isAllowedAddress(address, { allowPrivate: false })).toBe(false);
    expect(isAllowedAddress(address, { allowPrivate: true })).toBe(true);
  });

  test.each(NEVER)("%j is never allowed", (address) => {
    expect(isAllowedAddress(address, { allowPrivate: false })).toBe(false);
    expect(isAllowedAddress(address, { allowPrivate: true })).toBe(false);
  });
});
