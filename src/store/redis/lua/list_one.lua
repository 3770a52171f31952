-- Moves a session to its place in the listing. Two sessions never share a place. What keeps the listing in its bounds
-- is done when a session comes in, and when the listing's time to live is to be put off.
local function list(index, id, at, ttl, limit, sweep)
  local place = string.format('%.0f', at)
  while redis.call('ZCOUNT', index, place, place) > 0 do
    if redis.call('ZSCORE', index, id) == place then return end
    at = at + 1
    place = string.format('%.0f', at)
  end
  local added = redis.call('ZADD', index, 'GT', place, id)
  if added == 1 then redis.call('ZREMRANGEBYRANK', index, 0, -(tonumber(limit) + 1)) end
  local left, lives = redis.call('PTTL', index), tonumber(ttl)
  if sweep ~= '1' then
    -- Its sessions live as long as they are loaded, and nobody tells the listing.
    if left >= 0 then redis.call('PERSIST', index) end
    return
  end
  if left >= lives then return end
  -- One that lives longer lists sessions of a time when they lived longer. Set for longer than a session lives, so
  -- that this need not be done for each turn.
  redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('(%.0f', at - lives * 1000))
  redis.call('PEXPIRE', index, string.format('%.0f', lives + math.floor(lives / 16)))
end

