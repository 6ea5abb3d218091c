// Leases must be had, and sessions deleted, also where Redis is full: that is how there is room again.
const WHEN_FULL = "#!lua flags=allow-oom\n";

/**
 * What Redis does in one go. A script that is sent again because its answer was lost comes to the same.
 *
 * Numbers that are compared stay text or come from Redis itself; times are ms since 1970.
 */
export const SCRIPTS = {
  /** KEYS session, principal's set, session that is forked or the same. ARGV record, principal, id, end, now, limit, state. */
  create: `
    local known = redis.call("HGET", KEYS[1], "record")
    if known then return known == ARGV[1] and "created" or "exists" end
    if redis.call("ZCOUNT", KEYS[2], ARGV[5], "+inf") >= tonumber(ARGV[6]) then return "limit" end
    -- First what a full Redis refuses: once a script has written something, it refuses nothing more.
    redis.call("HSET", KEYS[1], "record", ARGV[1], "principal", ARGV[2], "fence", 0)
    redis.call("ZREMRANGEBYSCORE", KEYS[2], "-inf", ARGV[5])
    if ARGV[7] ~= "" then
      local files = redis.call("HGET", KEYS[3], "f:" .. ARGV[7]) or "[]"
      redis.call("HSET", KEYS[1], "f:" .. ARGV[7], files)
      local wanted = cjson.decode(files)
      wanted[#wanted + 1] = ARGV[7]
      for _, hash in ipairs(wanted) do
        local content = redis.call("HGET", KEYS[3], "b:" .. hash)
        if content then redis.call("HSET", KEYS[1], "b:" .. hash, content) end
      end
    end
    redis.call("PEXPIREAT", KEYS[1], ARGV[4])
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

  /** KEYS session, lease. ARGV fence, holder, ms. A lease that ran out while nobody wanted it is had again. */
  renew: `${WHEN_FULL}
    if redis.call("HGET", KEYS[1], "fence") ~= ARGV[1] then return "moved" end
    redis.call("SET", KEYS[2], ARGV[2], "PX", ARGV[3])
    return "renewed"`,

  /** KEYS lease. ARGV holder. */
  release: `
    if redis.call("GET", KEYS[1]) == ARGV[1] then redis.call("DEL", KEYS[1]) end
    return "released"`,

  /** KEYS session, principal's set. ARGV fence, deadline, id, record, end, states, new state, its files, then hash and content of each. */
  commit: `
    local time = redis.call("TIME")
    if time[1] * 1000 + time[2] / 1000 > tonumber(ARGV[2]) then return "late" end
    if redis.call("HGET", KEYS[1], "fence") ~= ARGV[1] then return "moved" end
    local files = cjson.decode(ARGV[8])
    local given = {}
    for i = 9, #ARGV, 2 do given[ARGV[i]] = true end
    for _, hash in ipairs(files) do
      if not given[hash] and redis.call("HEXISTS", KEYS[1], "b:" .. hash) == 0 then return "missing" end
    end
    for i = 9, #ARGV, 2 do redis.call("HSET", KEYS[1], "b:" .. ARGV[i], ARGV[i + 1]) end
    if ARGV[7] ~= "" then redis.call("HSET", KEYS[1], "f:" .. ARGV[7], ARGV[8]) end
    redis.call("HSET", KEYS[1], "record", ARGV[4])
    local needed = {record = true, principal = true, fence = true}
    for _, state in ipairs(cjson.decode(ARGV[6])) do
      needed["b:" .. state] = true
      needed["f:" .. state] = true
      local list = redis.call("HGET", KEYS[1], "f:" .. state)
      if list then for _, hash in ipairs(cjson.decode(list)) do needed["b:" .. hash] = true end end
    end
    for _, field in ipairs(redis.call("HKEYS", KEYS[1])) do
      if not needed[field] then redis.call("HDEL", KEYS[1], field) end
    end
    redis.call("PEXPIREAT", KEYS[1], ARGV[5])
    redis.call("ZADD", KEYS[2], ARGV[5], ARGV[3])
    return "stored"`,

  /** KEYS session, principal's set, lease. ARGV fence, id. */
  delete: `${WHEN_FULL}
    local fence = redis.call("HGET", KEYS[1], "fence")
    if fence and fence ~= ARGV[1] then return "moved" end
    redis.call("DEL", KEYS[1], KEYS[3])
    redis.call("ZREM", KEYS[2], ARGV[2])
    return "deleted"`,
} as const;
