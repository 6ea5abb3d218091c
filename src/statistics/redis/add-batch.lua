-- Counts a batch of events as a whole or not at all, and once, however often it is sent.
--
-- KEYS batch's name.
-- ARGV prefix, ms to remember the name, counts as [principal, kind, [[name, count], ...]], executions as [principal, text],
-- names that stay, their kinds, the name for the rest, times to forget as [kind, first to keep].
--
-- What a full Redis refuses comes first.

local MAX_LATEST = 20
if not redis.call("SET", KEYS[1], "", "NX", "PX", ARGV[2]) then return "known" end
local max = tonumber(ARGV[5])
local named, since = {}, {}
for _, kind in ipairs(cjson.decode(ARGV[6])) do named[kind] = true end
for _, item in ipairs(cjson.decode(ARGV[8])) do since[item[1]] = item[2] end
for _, group in ipairs(cjson.decode(ARGV[3])) do
  local principal, kind = group[1], group[2]
  local key = ARGV[1] .. kind .. ":" .. principal
  redis.call("SADD", ARGV[1] .. "principals", principal)
  for _, item in ipairs(group[3]) do redis.call("HINCRBYFLOAT", key, item[1], item[2]) end
  if named[kind] and redis.call("HLEN", key) > 2 * max then
    local all, counts = redis.call("HGETALL", key), {}
    for i = 1, #all, 2 do
      if all[i] ~= ARGV[7] then counts[#counts + 1] = {all[i], tonumber(all[i + 1])} end
    end
    table.sort(counts, function(a, b) return a[2] > b[2] or (a[2] == b[2] and a[1] < b[1]) end)
    local rest = 0
    for i = max + 1, #counts do
      rest = rest + counts[i][2]
      redis.call("HDEL", key, counts[i][1])
    end
    redis.call("HINCRBYFLOAT", key, ARGV[7], rest)
  end
  if since[kind] then
    for _, name in ipairs(redis.call("HKEYS", key)) do
      if tonumber(name) < since[kind] then redis.call("HDEL", key, name) end
    end
  end
end
for _, item in ipairs(cjson.decode(ARGV[4])) do
  local key = ARGV[1] .. "latest:" .. item[1]
  redis.call("LPUSH", key, item[2])
  redis.call("LTRIM", key, 0, MAX_LATEST - 1)
end
return "added"
