-- KEYS session, principal's set, usage, lease.
-- ARGV fence, deadline, id, record, end, states, new state, its files, most bytes, the holder that gives its lease back with it
-- or nothing, then hash and content of each.
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
return "stored"
