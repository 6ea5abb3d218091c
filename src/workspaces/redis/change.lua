-- Changes a workspace, unless it was changed since it was read.
--
-- KEYS workspace.
-- ARGV deadline, revision it was planned on, new revision, index, garbage, added contents with the names they were sent
-- under, contents that become garbage, ms to keep those, contents to delete at once.
--
-- A script that fails in the middle leaves what it has done. So all that a full Redis refuses comes first, in one command,
-- and what is looked up comes before that. One that is sent again because its answer was lost finds its name in `recent`.
local recent = redis.call("HGET", KEYS[1], "recent") or ""
if string.find(recent, ARGV[3], 1, true) then return "changed" end
local time = redis.call("TIME")
if time[1] * 1000 + time[2] / 1000 > tonumber(ARGV[1]) then return "late" end
if (redis.call("HGET", KEYS[1], "revision") or "") ~= ARGV[2] then return "conflict" end
local prefix = KEYS[1] .. ":content:"
local added = cjson.decode(ARGV[6])
for _, item in ipairs(added) do
  if redis.call("EXISTS", item[2], prefix .. item[1]) == 0 then return "missing" end
end
redis.call("HSET", KEYS[1], "revision", ARGV[3], "index", ARGV[4], "garbage", ARGV[5],
  "recent", string.sub(ARGV[3] .. recent, 1, 16 * 36))
for _, item in ipairs(added) do
  local content = prefix .. item[1]
  if redis.call("EXISTS", content) == 1 then redis.call("UNLINK", item[2]) else redis.call("RENAME", item[2], content) end
  redis.call("PERSIST", content)
end
for _, sha256 in ipairs(cjson.decode(ARGV[7])) do redis.call("PEXPIRE", prefix .. sha256, ARGV[8]) end
for _, sha256 in ipairs(cjson.decode(ARGV[9])) do redis.call("UNLINK", prefix .. sha256) end
return "changed"
