-- Writes what a principal has installed, unless it was changed since it was read.
--
-- KEYS record.
-- ARGV deadline, stamp it was made from, new stamp, record.
local stamp = redis.call("HGET", KEYS[1], "stamp") or ""
if stamp == ARGV[3] then return "written" end
local time = redis.call("TIME")
if time[1] * 1000 + time[2] / 1000 > tonumber(ARGV[1]) then return "late" end
if stamp ~= ARGV[2] then return "conflict" end
redis.call("HSET", KEYS[1], "stamp", ARGV[3], "record", ARGV[4])
return "written"
