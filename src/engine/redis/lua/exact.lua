-- Shared by the scripts that write scores, and put in front of them.
-- Points are whole numbers, exact at any size. A sorted set ranks them within ±(2^53 - 1), which doubles hold exactly: a
-- product with more, up or down, stands there at that bound. From ±2^52 on a product's points are also in a hash beside it. So
-- where there is no such hash, a score and a delta of less than that add up in the sorted set itself, without rounding.
-- In the hash, and in arguments from ±2^52 on, points are three whole numbers <high>:<middle>:<low> that mean
-- (high * 2^48 + middle) * 2^48 + low, where middle and low are from 0 to 2^48 - 1.
local MAX, LARGE, BASE = 9007199254740991, 4503599627370496, 281474976710656

-- The three numbers of points, however they are written.
local function limbs(text)
  local high, middle, low = string.match(text, '^(-?%d+):(%d+):(%d+)$')
  if high then return tonumber(high), tonumber(middle), tonumber(low) end
  local points = tonumber(text)
  local rest = math.floor(points / BASE)
  return math.floor(rest / BASE), rest % BASE, points % BASE
end

-- The sum of two: as the sorted set ranks it, and for the hash, where it belongs there.
local function sum(one, other)
  local high, middle, low = limbs(one)
  local more_high, more_middle, more_low = limbs(other)
  low, middle, high = low + more_low, middle + more_middle, high + more_high
  if low >= BASE then low, middle = low - BASE, middle + 1 end
  if middle >= BASE then middle, high = middle - BASE, high + 1 end
  -- Rounded only where it is far beyond the bound.
  local points = (high * BASE + middle) * BASE + low
  if points > -LARGE and points < LARGE then return points end
  return math.max(-MAX, math.min(MAX, points)), string.format('%.0f:%.0f:%.0f', high, middle, low)
end
