-- One like or unlike. The order of the checks is part of the engine's contract, and XADD stands before every other
-- write, because it is the one that can fail and Lua has no rollback.
-- KEYS  1 meta  2 journal  3 the user's likes  4 the user's answers  5 the user's rate
-- ARGV  1 epoch  2 user  3 product  4 idempotency key  5 event id  6 desired: toggle, 1 or 0  7 now in ms
--       8 settings, whole numbers with a space between: interval and burst of the rate in µs (interval 0: no limit),
--         ms that the rate is kept beyond its use, journal_len_max, journal_age_ms_max, likes_idle_ms,
--         answers_idle_ms, answers kept, likes_max, like_again_ms
--       9 1 where the key can't have been sent before, else 0
-- Reply EPOCH | REPLAYED answer | CONFLICT | LIMITED retry_after_ms | NOT_LOADED | BUSY | TOO_MANY | DONE answer
--       An answer is "<liked> <changed> <at> <position>"; it is saved behind its key and a tab, and before its product.
local epoch, user, product, key = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now = tonumber(ARGV[7])
local interval, burst, keep_ms, len_max, age_max, likes_idle, answers_idle, answers_max, likes_max, again =
  string.match(ARGV[8], '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
likes_max, again = tonumber(likes_max), tonumber(again)
interval, burst = tonumber(interval), tonumber(burst)

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'committed', 'since', 'uncertain')
if meta[1] ~= epoch then return {'EPOCH'} end

local saved_as = key .. '\t'
local saved = redis.call('LRANGE', KEYS[4], 0, -1)
for i = #saved, 1, -1 do
  if string.sub(saved[i], 1, #saved_as) == saved_as then
    local answer, its_product = string.match(saved[i], '^(%S+ %S+ %S+ %S+) ?(.*)$', #saved_as + 1)
    -- What was saved before answers held a product has none, and is taken for the same one's.
    if its_product ~= '' and its_product ~= product then return {'CONFLICT'} end
    return {'REPLAYED', answer}
  end
end

-- GCRA in whole microseconds: `arrival` is when the next like of a steady stream would be due.
local now_us = now * 1000
local arrival = now_us
if interval > 0 then
  local stored = tonumber(redis.call('GET', KEYS[5]) or now_us)
  -- No burst reaches further ahead than that: the clock was set back, which must not lock the user out.
  if stored > now_us + burst then stored = now_us + burst - interval end
  arrival = math.max(now_us, stored)
  local over = arrival - now_us - (burst - interval)
  if over > 0 then return {'LIMITED', math.max(1, math.ceil(over / 1000))} end
end

local scores = redis.call('ZMSCORE', KEYS[3], '', product)
-- Half an epoch more says that the user may have been loaded too early.
local is_early = scores[1] == epoch .. '.5'
if scores[1] ~= epoch and not is_early then return {'NOT_LOADED'} end

if redis.call('XLEN', KEYS[2]) >= tonumber(len_max) then return {'BUSY'} end
if is_too_old(KEYS[1], KEYS[2], meta[2], meta[3], now, tonumber(age_max)) then return {'BUSY'} end

local liked_at = scores[2]
-- Minus the time of a like that was taken back of late.
local first
if liked_at and string.sub(liked_at, 1, 1) == '-' then liked_at, first = false, string.sub(liked_at, 2) end
if first and now - tonumber(first) >= again then first = nil end
local like
if ARGV[6] == 'toggle' then like = not liked_at else like = ARGV[6] == '1' end
-- One member of the set is no like: it says that they are loaded.
local is_full = like and not liked_at and redis.call('ZCARD', KEYS[3]) > likes_max
if is_full and redis.call('ZCOUNT', KEYS[3], 0, '+inf') > likes_max then return {'TOO_MANY'} end
local answer
if like == (liked_at ~= false) then
  local stream = redis.call('XINFO', 'STREAM', KEYS[2])
  local last
  for i = 1, #stream, 2 do
    if stream[i] == 'last-generated-id' then last = stream[i + 1] end
  end
  answer = (like and '1' or '0') .. ' 0 ' .. (liked_at or ARGV[7]) .. ' ' .. last
else
  -- An unlike carries the time of the like that it takes back, and so does a like soon after that. Signal 1 is LIKE.
  local occurred_at = liked_at or first or ARGV[7]
  local committed = tonumber(string.match(meta[2] or '0', '%d+$'))
  local is_new = ARGV[9] == '1' and not is_early and committed >= tonumber(meta[4] or '0')
  local position = redis.call('XADD', KEYS[2], epoch .. '-*', 'id', ARGV[5], 'signal', '1', 'product', product,
    'user', user, 'count', like and '1' or '-1', 'occurred_at', occurred_at,
    'recorded_at', ARGV[7], 'reverses', '', 'new', is_new and '1' or '0')
  -- The seq of the last like that only the ledger can judge.
  if not is_new then redis.call('HSET', KEYS[1], 'uncertain', string.match(position, '%d+$')) end
  if not meta[3] then redis.call('HSET', KEYS[1], 'since', ARGV[7]) end
  if like then
    redis.call('ZADD', KEYS[3], occurred_at, product)
    -- What was unliked makes room, the oldest first, which stands last below 0.
    if redis.call('ZCARD', KEYS[3]) > likes_max + 1 then
      local oldest = redis.call('ZRANGE', KEYS[3], '(0', '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1]
      if oldest then redis.call('ZREM', KEYS[3], oldest) end
    end
  else
    local lapsed = redis.call('ZRANGE', KEYS[3], string.format('%.0f', again - now), '(0', 'BYSCORE')
    for i = 1, #lapsed do redis.call('ZREM', KEYS[3], lapsed[i]) end
    if now - tonumber(liked_at) < again then
      redis.call('ZADD', KEYS[3], '-' .. liked_at, product)
    else
      redis.call('ZREM', KEYS[3], product)
    end
  end
  answer = (like and '1' or '0') .. ' 1 ' .. ARGV[7] .. ' ' .. position
end
redis.call('PEXPIRE', KEYS[3], likes_idle)
if interval > 0 then
  arrival = arrival + interval
  local ttl_ms = math.ceil((arrival - now_us) / 1000) + tonumber(keep_ms)
  redis.call('SET', KEYS[5], string.format('%.0f', arrival), 'PX', string.format('%.0f', ttl_ms))
end
redis.call('RPUSH', KEYS[4], saved_as .. answer .. ' ' .. product)
if #saved >= tonumber(answers_max) then redis.call('LTRIM', KEYS[4], -answers_max, -1) end
redis.call('PEXPIRE', KEYS[4], answers_idle)
return {'DONE', answer}
