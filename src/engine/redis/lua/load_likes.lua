-- Puts users' likes where none are loaded, and answers whose keys are unknown so far. The users share one partition.
-- KEYS  1 meta, then for each user: likes, answers; and last, for a single user, where the likes are staged, if they are
-- ARGV  1 epoch  2 likes_idle_ms  3 answers_idle_ms  4 answers kept  5 as of which position, then for each user:
--       how many likes, how many answers, score and product of each like, each answer as it is saved
-- Reply EPOCH | EXPIRED where what was staged is gone | OK
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 'EPOCH' end
local staged = #KEYS % 2 == 0 and KEYS[#KEYS]
if staged and redis.call('EXISTS', staged) == 0 then return 'EXPIRED' end
local as_of_epoch, as_of = string.match(ARGV[5], '^(%d+)%-(%d+)$')
as_of = as_of_epoch == ARGV[1] and tonumber(as_of) or 0
local at = 6
for k = 2, #KEYS - 1, 2 do
  local likes, answers = KEYS[k], KEYS[k + 1]
  local like_values, answer_count = 2 * tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  at = at + 2
  local held = redis.call('ZSCORE', likes, '')
  if held ~= ARGV[1] and held ~= ARGV[1] .. '.5' then
    -- Left by forget_likes.lua.
    local is_early = held and as_of < -tonumber(held) and redis.call('ZSCORE', likes, 'epoch') == ARGV[1]
    redis.call('UNLINK', likes)
    if staged then redis.call('RENAME', staged, likes) end
    redis.call('ZADD', likes, is_early and ARGV[1] .. '.5' or ARGV[1], '')
    -- In calls of 1,000, since Lua's stack holds some 8,000 values.
    for from = 0, like_values - 1, 2000 do
      redis.call('ZADD', likes, unpack(ARGV, at + from, at + math.min(from + 2000, like_values) - 1))
    end
    redis.call('PEXPIRE', likes, ARGV[2])
  elseif staged then
    redis.call('UNLINK', staged)
  end
  at = at + like_values
  if answer_count > 0 then
    -- What comes from the ledger counts as older than what is known, and fills what is left of the list, newest first.
    local saved, known, added = redis.call('LRANGE', answers, 0, -1), {}, 0
    for _, answer in ipairs(saved) do known[string.match(answer, '^[^\t]*')] = true end
    for i = at + answer_count - 1, at, -1 do
      local key = string.match(ARGV[i], '^[^\t]*')
      if #saved + added < tonumber(ARGV[4]) and not known[key] then
        known[key], added = true, added + 1
        redis.call('LPUSH', answers, ARGV[i])
      end
    end
    if added > 0 then redis.call('PEXPIRE', answers, ARGV[3]) end
    at = at + answer_count
  end
end
return 'OK'
