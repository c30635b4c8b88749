-- Puts scores into the generation that is being built.
-- KEYS  1 meta  2 next scores  3 next beyond
-- ARGV  1 generation  2 whether any are large (1 or 0), then points and product of each
-- Reply 1, or 0 where it is not being built
if redis.call('HGET', KEYS[1], 'building') ~= ARGV[1] then return 0 end
local listed = {}
local function flush()
  if #listed > 0 then redis.call('ZADD', KEYS[2], unpack(listed)) end
  listed = {}
end
local has_beyond = ARGV[2] == '1' or redis.call('EXISTS', KEYS[3]) == 1
for i = 3, #ARGV, 2 do
  local points, product = ARGV[i], ARGV[i + 1]
  if has_beyond then
    local ranked, exact = sum(points, '0')
    if exact then
      redis.call('HSET', KEYS[3], product, exact)
      points = string.format('%.0f', ranked)
    else
      redis.call('HDEL', KEYS[3], product)
    end
  end
  if points == '0' then
    -- A product may come twice, so what stands before must be written first.
    flush()
    redis.call('ZREM', KEYS[2], product)
  else
    listed[#listed + 1], listed[#listed + 2] = points, product
    -- 1,000 products a call: Lua's stack holds some 8,000 values.
    if #listed == 2000 then flush() end
  end
end
flush()
return 1
