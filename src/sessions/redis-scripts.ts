// allow-oom: leases and deletes must work at maxmemory, or space could never be freed.
const WHEN_FULL = "#!lua flags=allow-oom\n";

/** What a field costs beside its name and value, bytes. */
const FIELD_BYTES = 64;

/**
 * What a principal's sessions take: `usageOf` reads it, `setUsage` writes it once nothing can be refused any more.
 *
 * It is kept for each session, so that what has expired can be given back. A commit counts its whole session: what a server
 * of a version that does not count has stored is found then.
 */
const USAGE = `
  local function costOf(field, bytes) return ${FIELD_BYTES} + #field + bytes end
  local function bytesOf(session)
    local bytes = 0
    for _, field in ipairs(redis.call("HKEYS", session)) do
      bytes = bytes + costOf(field, redis.call("HSTRLEN", session, field))
    end
    return bytes
  end
  local function usageOf(usage, sessions, session, id, nowMs)
    local found = {total = tonumber(redis.call("HGET", usage, ".total") or -1), first = {}}
    if found.total < 0 then
      found.total = 0
      local prefix = string.sub(session, 1, #session - #id)
      for _, other in ipairs(redis.call("ZRANGE", sessions, 0, -1)) do
        local bytes = bytesOf(prefix .. other)
        found.first[other] = bytes
        found.total = found.total + bytes
      end
    end
    found.ended = {}
    for _, other in ipairs(redis.call("ZRANGEBYSCORE", sessions, "-inf", nowMs)) do
      if other ~= id then
        found.ended[#found.ended + 1] = other
        found.total = found.total - (found.first[other] or redis.call("HGET", usage, other) or 0)
        found.first[other] = nil
      end
    end
    found.own = tonumber(found.first[id] or redis.call("HGET", usage, id) or 0)
    return found
  end
  -- Gives back what a server of a version that does not count has deleted. Asked for before a refusal only.
  local function forgetDeleted(usage, sessions, found)
    local freed = 0
    for _, other in ipairs(redis.call("HKEYS", usage)) do
      if other ~= ".total" and not redis.call("ZSCORE", sessions, other) then
        freed = freed + redis.call("HGET", usage, other)
        redis.call("HDEL", usage, other)
      end
    end
    if freed > 0 then redis.call("HINCRBY", usage, ".total", -freed) end
    found.total = found.total - freed
  end
  local function isTooMuch(usage, sessions, found, bytes, most)
    if bytes <= found.own then return false end
    if found.total - found.own + bytes > most then forgetDeleted(usage, sessions, found) end
    return found.total - found.own + bytes > most
  end
  local function setUsage(usage, sessions, id, bytes, found)
    for other, first in pairs(found.first) do redis.call("HSET", usage, other, first) end
    for _, other in ipairs(found.ended) do
      redis.call("HDEL", usage, other)
      redis.call("ZREM", sessions, other)
    end
    redis.call("HSET", usage, id, bytes, ".total", found.total - found.own + bytes)
  end
`;

const COMMIT = `${USAGE}
    local time = redis.call("TIME")
    local nowMs = time[1] * 1000 + time[2] / 1000
    if nowMs > tonumber(ARGV[2]) then return "late" end
    if redis.call("HGET", KEYS[1], "fence") ~= ARGV[1] then
      -- Where it was made and its answer was lost, another may have the lease that it gave back.
      return redis.call("HGET", KEYS[1], "record") == ARGV[4] and "stored" or "moved"
    end
    local given = {}
    for i = 11, #ARGV, 2 do given["b:" .. ARGV[i]] = ARGV[i + 1] end
    for _, hash in ipairs(cjson.decode(ARGV[8])) do
      if not given["b:" .. hash] and redis.call("HEXISTS", KEYS[1], "b:" .. hash) == 0 then return "missing" end
    end
    if ARGV[7] ~= "" then given["f:" .. ARGV[7]] = ARGV[8] end
    given.record = ARGV[4]
    local needed = {record = true, principal = true, fence = true}
    for _, state in ipairs(cjson.decode(ARGV[6])) do
      needed["b:" .. state] = true
      needed["f:" .. state] = true
      local list = given["f:" .. state] or redis.call("HGET", KEYS[1], "f:" .. state)
      if list then for _, hash in ipairs(cjson.decode(list)) do needed["b:" .. hash] = true end end
    end
    local bytes = 0
    for field in pairs(needed) do
      local size = given[field] and #given[field] or redis.call("HSTRLEN", KEYS[1], field)
      if size > 0 then bytes = bytes + costOf(field, size) end
    end
    local used = usageOf(KEYS[3], KEYS[2], KEYS[1], ARGV[3], nowMs)
    if isTooMuch(KEYS[3], KEYS[2], used, bytes, tonumber(ARGV[9])) then return "full" end
    for field, content in pairs(given) do redis.call("HSET", KEYS[1], field, content) end
    for _, field in ipairs(redis.call("HKEYS", KEYS[1])) do
      if not needed[field] then redis.call("HDEL", KEYS[1], field) end
    end
    redis.call("PEXPIREAT", KEYS[1], ARGV[5])
    setUsage(KEYS[3], KEYS[2], ARGV[3], bytes, used)
    redis.call("ZADD", KEYS[2], ARGV[5], ARGV[3])
    if redis.call("GET", KEYS[4]) == ARGV[10] then redis.call("DEL", KEYS[4]) end
    return "stored"`;

/**
 * What Redis does in one go. A script that is sent again because its answer was lost comes to the same.
 *
 * Numbers that are compared stay text or come from Redis itself; times are ms since 1970.
 */
export const SCRIPTS = {
  /** KEYS session, principal's set, session that is forked or the same, usage. ARGV record, principal, id, end, now, limit, state, most bytes. */
  create: `${USAGE}
    local known = redis.call("HGET", KEYS[1], "record")
    if known then return known == ARGV[1] and "created" or "exists" end
    if redis.call("ZCOUNT", KEYS[2], ARGV[5], "+inf") >= tonumber(ARGV[6]) then return "limit" end
    local files = ARGV[7] ~= "" and (redis.call("HGET", KEYS[3], "f:" .. ARGV[7]) or "[]")
    local wanted = files and cjson.decode(files) or {}
    if files then wanted[#wanted + 1] = ARGV[7] end
    local bytes = costOf("record", #ARGV[1]) + costOf("principal", #ARGV[2]) + costOf("fence", 8)
    if files then bytes = bytes + costOf("f:" .. ARGV[7], #files) end
    for _, hash in ipairs(wanted) do
      bytes = bytes + costOf("b:" .. hash, redis.call("HSTRLEN", KEYS[3], "b:" .. hash))
    end
    local used = usageOf(KEYS[4], KEYS[2], KEYS[1], ARGV[3], ARGV[5])
    if isTooMuch(KEYS[4], KEYS[2], used, bytes, tonumber(ARGV[8])) then return "full" end
    -- First what a full Redis refuses: once a script has written something, it refuses nothing more.
    redis.call("HSET", KEYS[1], "record", ARGV[1], "principal", ARGV[2], "fence", 0)
    if files then redis.call("HSET", KEYS[1], "f:" .. ARGV[7], files) end
    for _, hash in ipairs(wanted) do
      local content = redis.call("HGET", KEYS[3], "b:" .. hash)
      if content then redis.call("HSET", KEYS[1], "b:" .. hash, content) end
    end
    redis.call("PEXPIREAT", KEYS[1], ARGV[4])
    setUsage(KEYS[4], KEYS[2], ARGV[3], bytes, used)
    redis.call("ZADD", KEYS[2], ARGV[4], ARGV[3])
    return "created"`,

  /** KEYS session, lease. ARGV holder, ms, principal. Answers `{record, fence, time}`. */
  acquire: `${WHEN_FULL}
    local fields = redis.call("HMGET", KEYS[1], "record", "principal")
    if not fields[1] or fields[2] ~= ARGV[3] then return false end
    local holder = redis.call("GET", KEYS[2])
    if holder and holder ~= ARGV[1] then return "busy" end
    local fence = redis.call("HINCRBY", KEYS[1], "fence", 1)
    redis.call("SET", KEYS[2], ARGV[1], "PX", ARGV[2])
    local time = redis.call("TIME")
    return {fields[1], fence, time[1] * 1000 + math.floor(time[2] / 1000)}`,

  /** KEYS session, lease. ARGV fence, holder, ms. A lease that expired and was not taken over is acquired again. */
  renew: `${WHEN_FULL}
    if redis.call("HGET", KEYS[1], "fence") ~= ARGV[1] then return "moved" end
    redis.call("SET", KEYS[2], ARGV[2], "PX", ARGV[3])
    return "renewed"`,

  /** KEYS lease. ARGV holder. */
  release: `
    if redis.call("GET", KEYS[1]) == ARGV[1] then redis.call("DEL", KEYS[1]) end
    return "released"`,

  /**
   * KEYS session, principal's set, usage, lease. ARGV fence, deadline, id, record, end, states, new state, its files, most bytes, the
   * holder that gives its lease back with it or nothing, then hash and content of each.
   */
  commit: COMMIT,

  /** The same, allowed also where Redis is full: only for changes after which there is less. */
  commitDeletion: WHEN_FULL + COMMIT,

  /** KEYS session, principal's set, lease, usage. ARGV fence, id. */
  delete: `${WHEN_FULL}
    local fence = redis.call("HGET", KEYS[1], "fence")
    if fence and fence ~= ARGV[1] then return "moved" end
    redis.call("DEL", KEYS[1], KEYS[3])
    redis.call("ZREM", KEYS[2], ARGV[2])
    local bytes = redis.call("HGET", KEYS[4], ARGV[2])
    if bytes then
      redis.call("HDEL", KEYS[4], ARGV[2])
      redis.call("HINCRBY", KEYS[4], ".total", -bytes)
    end
    return "deleted"`,
} as const;
