/** The SQL of `database.ts`, prepared once. */
export const STATEMENTS = {
  get: "SELECT record FROM sessions WHERE id = ?",
  add: "INSERT INTO sessions (id, principal, last_used_at_ms, ends_at_ms, record) VALUES (?, ?, ?, ?, ?)",
  put: "UPDATE sessions SET last_used_at_ms = ?, ends_at_ms = ?, record = ? WHERE id = ?",
  delete: "DELETE FROM sessions WHERE id = ?",
  count: "SELECT count(*) AS count FROM sessions WHERE principal = ? AND ends_at_ms > ?",
  list: "SELECT record FROM sessions WHERE principal = ? AND ends_at_ms > ? ORDER BY last_used_at_ms DESC",
  ended: "SELECT id FROM sessions WHERE ends_at_ms <= ? ORDER BY ends_at_ms LIMIT 100",
  owner:
    "INSERT INTO owners (principal, bytes) VALUES (?, 0) ON CONFLICT (principal) DO UPDATE SET bytes = bytes RETURNING id",
  usage: `SELECT coalesce(sum(bytes) FILTER (WHERE id = :id), 0) AS own, coalesce(sum(bytes) FILTER (WHERE id <> :id), 0) AS others
    FROM owners`,
  charge: "UPDATE owners SET bytes = max(0, bytes + ?) WHERE id = ?",
  principalOf: "SELECT principal FROM sessions WHERE id = ?",
  findContent: "SELECT id FROM contents WHERE owner = ? AND sha256 = ?",
  addContent: "INSERT INTO contents (owner, sha256, size, file, bytes) VALUES (?, ?, ?, ?, ?)",
  readContent: `SELECT file, bytes FROM contents WHERE sha256 = ? AND owner =
    (SELECT owners.id FROM sessions JOIN owners USING (principal) WHERE sessions.id = ?)`,
  dropContent:
    "DELETE FROM contents WHERE id = ? AND NOT EXISTS (SELECT 1 FROM uses WHERE content = ?) RETURNING size, file",
  isFileUsed: "SELECT 1 FROM contents WHERE file = ? LIMIT 1",
  addUse: "INSERT OR IGNORE INTO uses (session, snapshot, content) VALUES (?, ?, ?)",
  copyUses: "INSERT OR IGNORE INTO uses SELECT ?, snapshot, content FROM uses WHERE session = ? AND snapshot = ?",
  dropUses: "DELETE FROM uses WHERE session = ? AND snapshot NOT IN (SELECT value FROM json_each(?)) RETURNING content",
  files: "SELECT DISTINCT file FROM contents WHERE file IS NOT NULL",
  move: `UPDATE sessions SET last_used_at_ms = last_used_at_ms + :step, ends_at_ms = ends_at_ms + :step,
    record = json_set(json_replace(record, '$.endsAtMs', ends_at_ms + :step), '$.lastUsedAtMs', last_used_at_ms + :step,
      '$.createdAtMs', json_extract(record, '$.createdAtMs') + :step)`,
  freePages: "PRAGMA freelist_count",
} as const;
