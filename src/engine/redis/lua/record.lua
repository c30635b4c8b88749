-- Records producers' events in one partition, in order.
-- KEYS  1 meta  2 journal, then for each event: its own key, the key of the event it reverses (its own where none)
-- ARGV  1 epoch  2 now in ms  3 journal_len_max  4 journal_age_ms_max  5 event_memory_ms, then for each event:
--       id, signal, product, user or '', count, occurred_at, id of what it reverses or '', what the caller knows of that or ''
--       An event is remembered as "<signal> <count> <occurred_at> <reversed> <product>".
-- Reply EPOCH | OK, then for each event: its position | DUPLICATE | UNKNOWN | MISMATCH | BUSY
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'committed', 'since')
if meta[1] ~= ARGV[1] then return {'EPOCH'} end
local now, age_max, memory_ms = tonumber(ARGV[2]), tonumber(ARGV[4]), ARGV[5]
local room = tonumber(ARGV[3]) - redis.call('XLEN', KEYS[2])
local since = meta[3]
local too_old = is_too_old(KEYS[1], KEYS[2], meta[2], since, now, age_max)

local function record(own_key, original_key, id, signal, product, user, count, occurred_at, reverses, given)
  if redis.call('EXISTS', own_key) == 1 then return 'DUPLICATE' end
  local original
  if reverses ~= '' then
    original = redis.call('GET', original_key) or given
    if original == '' then return 'UNKNOWN' end
    local its_signal, its_count, its_time, reversed, its_product =
      string.match(original, '^(%d+) (%-?%d+) (%-?%d+) ([01]) (.*)$')
    if its_signal ~= signal or its_product ~= product then return 'MISMATCH' end
    if reversed == '1' then return 'DUPLICATE' end
    original = its_signal .. ' ' .. its_count .. ' ' .. its_time .. ' 1 ' .. its_product
    count, occurred_at = string.format('%.0f', -tonumber(its_count)), its_time
  end
  if room <= 0 or too_old then return 'BUSY' end
  local position = redis.call('XADD', KEYS[2], ARGV[1] .. '-*', 'id', id, 'signal', signal, 'product', product,
    'user', user, 'count', count, 'occurred_at', occurred_at, 'recorded_at', ARGV[2], 'reverses', reverses,
    'new', '0')
  room = room - 1
  if not since then
    since = ARGV[2]
    redis.call('HSET', KEYS[1], 'since', since)
  end
  -- An entry of this call has no age yet, so it is too old only where any is.
  too_old = age_max == 0
  redis.call('SET', own_key, signal .. ' ' .. count .. ' ' .. occurred_at .. ' 0 ' .. product, 'PX', memory_ms)
  if original then redis.call('SET', original_key, original, 'PX', memory_ms) end
  return position
end

local reply = {'OK'}
for n = 1, (#KEYS - 2) / 2 do
  local at = 6 + (n - 1) * 8
  reply[n + 1] = record(KEYS[1 + 2 * n], KEYS[2 + 2 * n], unpack(ARGV, at, at + 7))
end
return reply
