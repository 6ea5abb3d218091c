-- KEYS set of principals.
-- ARGV prefix, kinds, principal or nothing: all.
local principals = ARGV[3] == "" and redis.call("SMEMBERS", KEYS[1]) or {ARGV[3]}
for _, principal in ipairs(principals) do
  for _, kind in ipairs(cjson.decode(ARGV[2])) do redis.call("UNLINK", ARGV[1] .. kind .. ":" .. principal) end
  redis.call("SREM", KEYS[1], principal)
end
return "cleared"
