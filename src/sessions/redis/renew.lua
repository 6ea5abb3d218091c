-- A lease that expired and was not taken over is acquired again.
-- KEYS session, lease.
-- ARGV fence, holder, ms.
if redis.call("HGET", KEYS[1], "fence") ~= ARGV[1] then return "moved" end
redis.call("SET", KEYS[2], ARGV[2], "PX", ARGV[3])
return "renewed"
