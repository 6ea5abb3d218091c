-- KEYS session, lease.
-- ARGV holder, ms, principal.
-- Answers {record, fence, time}.
local fields = redis.call("HMGET", KEYS[1], "record", "principal")
if not fields[1] or fields[2] ~= ARGV[3] then return false end
local holder = redis.call("GET", KEYS[2])
if holder and holder ~= ARGV[1] then return "busy" end
local fence = redis.call("HINCRBY", KEYS[1], "fence", 1)
redis.call("SET", KEYS[2], ARGV[1], "PX", ARGV[2])
local time = redis.call("TIME")
return {fields[1], fence, time[1] * 1000 + math.floor(time[2] / 1000)}
