#!lua flags=allow-oom
-- Puts scores into the generation that is being built.
-- KEYS  1 meta  2 next scores
-- ARGV  1 generation, then points and product of each
-- Reply 1, or 0 where it is not being built
if redis.call('HGET', KEYS[1], 'building') ~= ARGV[1] then return 0 end
local listed = {}
local function flush()
  if #listed > 0 then redis.call('ZADD', KEYS[2], unpack(listed)) end
  listed = {}
end
for i = 2, #ARGV, 2 do
  if ARGV[i] == '0' then
    -- A product may come twice, so what stands before must be written first.
    flush()
    redis.call('ZREM', KEYS[2], ARGV[i + 1])
  else
    listed[#listed + 1], listed[#listed + 2] = ARGV[i], ARGV[i + 1]
    -- 1,000 products a call: Lua's stack holds some 8,000 values.
    if #listed == 2000 then flush() end
  end
end
flush()
return 1
