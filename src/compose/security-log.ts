import type { Logger } from "pino";
import { SecurityLog } from "../security-log/security-log.ts";
import { StartupError } from "../shared/errors.ts";
import type { Config } from "../shared/settings.ts";

/** @throws {StartupError} if the log cannot be used, and waiting would not help. */
export function openSecurityLog(config: Config, logger: Logger): SecurityLog {
  const { LOG_DIR: dir, LOG_MAX_SIZE: maxBytes, LOG_MAX_TOTAL_MB } = config;
  const maxTotalBytes = LOG_MAX_TOTAL_MB === 0 ? Number.POSITIVE_INFINITY : LOG_MAX_TOTAL_MB * 2 ** 20;
  if (maxTotalBytes < 2 * maxBytes) {
    throw new StartupError(
      "LOG_MAX_TOTAL_MB must have room for two files of LOG_MAX_SIZE, or be 0: nothing is deleted.",
    );
  }
  const log = new SecurityLog({
    dir,
    maxBytes,
    maxTotalBytes,
    onHealth: (healthy, reason) => {
      if (healthy) logger.info("The security log can be written again.");
      else logger.error({ reason }, "The security log cannot be written.");
    },
  });
  const { refused } = log;
  // A full disk has room again some time, and code may run until then. Another server's log stays that server's.
  if (refused !== null && refused.trouble !== null && refused.trouble !== "full") {
    void log.close();
    throw refused;
  }
  return log;
}
