-- Adds deltas and moves cursors, if every partition's cursor is where its move begins.
-- KEYS  1 meta  2 scores  3 cursor  4 beyond  5 next scores  6 next cursor  7 next beyond
-- ARGV  1 generation  2 whether any delta is large (1 or 0)  3 how many moves, then partition, from and to of each, then
--       product and delta of each, no product twice
-- Reply 1, or 0 where nothing was done
local numbers = redis.call('HMGET', KEYS[1], 'generation', 'building')
local scores, cursor, beyond
if numbers[1] == ARGV[1] then
  scores, cursor, beyond = KEYS[2], KEYS[3], KEYS[4]
elseif numbers[2] == ARGV[1] then
  scores, cursor, beyond = KEYS[5], KEYS[6], KEYS[7]
else
  return 0
end
local deltas = 4 + 3 * tonumber(ARGV[3])
for i = 4, deltas - 1, 3 do
  if redis.call('HGET', cursor, ARGV[i]) ~= ARGV[i + 1] then return 0 end
end

local function put_sum(product, one, other)
  local points, exact = sum(one, other)
  if exact then
    redis.call('HSET', beyond, product, exact)
  else
    redis.call('HDEL', beyond, product)
  end
  if points == 0 then
    redis.call('ZREM', scores, product)
  else
    redis.call('ZADD', scores, string.format('%.0f', points), product)
  end
end

if ARGV[2] == '1' or redis.call('EXISTS', beyond) == 1 then
  for i = deltas, #ARGV, 2 do
    local product = ARGV[i]
    local before = redis.call('HGET', beyond, product) or redis.call('ZSCORE', scores, product)
    put_sum(product, before or '0', ARGV[i + 1])
  end
else
  for i = deltas, #ARGV, 2 do
    local points = tonumber(redis.call('ZINCRBY', scores, ARGV[i + 1], ARGV[i]))
    if points == 0 then
      redis.call('ZREM', scores, ARGV[i])
    elseif points >= LARGE or points <= -LARGE then
      put_sum(ARGV[i], string.format('%.0f', points), '0')
    end
  end
end
for i = 4, deltas - 1, 3 do redis.call('HSET', cursor, ARGV[i], ARGV[i + 2]) end
return 1
