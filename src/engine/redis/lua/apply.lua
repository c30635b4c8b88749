#!lua flags=allow-oom
-- Adds deltas and moves cursors, if every partition's cursor is where its move begins.
-- KEYS  1 meta  2 scores  3 cursor  4 next scores  5 next cursor
-- ARGV  1 generation  2 how many moves, then partition, from and to of each, then product and delta of each
-- Reply 1, or 0 where nothing was done
-- Points are whole numbers within ±(2^53 - 1), which doubles hold exactly; a sum beyond is cut to that.
local MAX = 9007199254740991
local numbers = redis.call('HMGET', KEYS[1], 'generation', 'building')
local scores, cursor
if numbers[1] == ARGV[1] then
  scores, cursor = KEYS[2], KEYS[3]
elseif numbers[2] == ARGV[1] then
  scores, cursor = KEYS[4], KEYS[5]
else
  return 0
end
local deltas = 3 + 3 * tonumber(ARGV[2])
for i = 3, deltas - 1, 3 do
  if redis.call('HGET', cursor, ARGV[i]) ~= ARGV[i + 1] then return 0 end
end
for i = deltas, #ARGV, 2 do
  local points = tonumber(redis.call('ZINCRBY', scores, ARGV[i + 1], ARGV[i]))
  if points == 0 then
    redis.call('ZREM', scores, ARGV[i])
  elseif points > MAX then
    redis.call('ZADD', scores, string.format('%.0f', MAX), ARGV[i])
  elseif points < -MAX then
    redis.call('ZADD', scores, string.format('%.0f', -MAX), ARGV[i])
  end
end
for i = 3, deltas - 1, 3 do redis.call('HSET', cursor, ARGV[i], ARGV[i + 2]) end
return 1
