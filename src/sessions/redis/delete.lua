-- KEYS session, principal's set, lease, usage.
-- ARGV fence, id.
local fence = redis.call("HGET", KEYS[1], "fence")
if fence and fence ~= ARGV[1] then return "moved" end
redis.call("DEL", KEYS[1], KEYS[3])
redis.call("ZREM", KEYS[2], ARGV[2])
local bytes = redis.call("HGET", KEYS[4], ARGV[2])
if bytes then
  redis.call("HDEL", KEYS[4], ARGV[2])
  redis.call("HINCRBY", KEYS[4], ".total", -bytes)
end
return "deleted"
