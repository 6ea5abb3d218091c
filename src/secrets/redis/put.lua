-- Stores a secret of a principal, unless it has too many.
--
-- KEYS its secrets.
-- ARGV deadline, name, record, most secrets.
local time = redis.call("TIME")
if time[1] * 1000 + time[2] / 1000 > tonumber(ARGV[1]) then return "late" end
local isNew = redis.call("HEXISTS", KEYS[1], ARGV[2]) == 0
if isNew and redis.call("HLEN", KEYS[1]) >= tonumber(ARGV[4]) then return "full" end
redis.call("HSET", KEYS[1], ARGV[2], ARGV[3])
return "stored"
