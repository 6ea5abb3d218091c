-- What a principal's sessions take, before each script that changes it: `usageOf` reads it, `setUsage` writes it once
-- nothing can be refused any more.
--
-- It is kept for each session, so that what has expired can be given back. A commit counts its whole session: what a server
-- of a version that does not count has stored is found then.

-- What a field costs beside its name and value, bytes.
local FIELD_BYTES = 64
local function costOf(field, bytes) return FIELD_BYTES + #field + bytes end
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
