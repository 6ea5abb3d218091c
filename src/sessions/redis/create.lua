-- KEYS session, principal's set, session that is forked or the same, usage.
-- ARGV record, principal, id, end, now, limit, state, most bytes.
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
return "created"
