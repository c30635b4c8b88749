-- Reads a page of what a board shows.
-- KEYS  1 meta  2 scores  3 cursor  4 beyond
-- ARGV  1 count, then: rank N | after POINTS PRODUCT (points as they rank) | around PRODUCT RADIUS
-- Reply nil where nothing is shown, else: the build, its cursors, seq, places above the page, places on the board, product and
--       points of each place. A build is generation, epoch, period, revision, rules_version, built_at,
--       reason.
local build = redis.call('HMGET', KEYS[1], 'generation', 'epoch', 'period', 'revision', 'rules_version', 'built_at',
  'reason')
if not build[1] then return false end
local scores, count, start = KEYS[2], tonumber(ARGV[1]), ARGV[2]

-- Lua compares strings by the server's locale; the order of a sorted set is that of the bytes.
local function is_higher(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end

-- How many places rank above one with these points and this product, whether or not it is listed.
local function above(points, product)
  local low = redis.call('ZCOUNT', scores, '(' .. points, '+inf')
  local high = low + redis.call('ZCOUNT', scores, points, points)
  -- Between the two all have the same points and stand by id, highest first.
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_higher(redis.call('ZREVRANGE', scores, middle, middle)[1], product) then low = middle + 1 else high = middle end
  end
  return low
end

local total = redis.call('ZCARD', scores)
local skip
if start == 'rank' then
  skip = math.max(0, tonumber(ARGV[3]) - 1)
elseif start == 'after' then
  if redis.call('ZSCORE', scores, ARGV[4]) == ARGV[3] then
    skip = redis.call('ZREVRANK', scores, ARGV[4]) + 1
  else
    skip = above(ARGV[3], ARGV[4])
  end
else
  local rank = redis.call('ZREVRANK', scores, ARGV[3])
  skip = rank and math.max(0, rank - tonumber(ARGV[4])) or total
end
local places = {}
if count > 0 and skip < total then
  local last = math.min(skip + count, total) - 1
  places = redis.call('ZREVRANGE', scores, string.format('%.0f', skip), string.format('%.0f', last), 'WITHSCORES')
end
local seq = redis.call('HGET', KEYS[1], 'seq') or '0'
return {build, redis.call('HGETALL', KEYS[3]), seq, skip, total, told(places, KEYS[4])}
