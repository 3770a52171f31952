-- Keeps the listing of principals: each stands at the time of its newest turn. `due`: whether what expired is to be removed,
-- and the listing's own expiry put off.
local function enlist(principals, principal, at, ttl, sweep, due)
  redis.call('ZADD', principals, 'GT', string.format('%.0f', at), principal)
  if not due then return end
  if sweep ~= '1' then return redis.call('PERSIST', principals) end
  local lives = tonumber(ttl)
  local most = lives + math.floor(lives / 16)
  -- One that lives longer lists sessions of a time when they lived longer.
  if redis.call('PTTL', principals) > most then return end
  redis.call('ZREMRANGEBYSCORE', principals, '-inf', string.format('(%.0f', at - lives * 1000))
  redis.call('PEXPIRE', principals, string.format('%.0f', most))
end

-- Moves a session to its place in the listing. Two sessions never share a place. What keeps the listing in its bounds
-- is done when a session comes in, and when the listing's time to live is to be put off. `principals` is nil where that
-- listing is on another server.
local function list(index, principals, principal, id, at, ttl, limit, sweep)
  local place = string.format('%.0f', at)
  while redis.call('ZCOUNT', index, place, place) > 0 do
    if redis.call('ZSCORE', index, id) == place then return end
    at = at + 1
    place = string.format('%.0f', at)
  end
  local added = redis.call('ZADD', index, 'GT', place, id)
  if added == 1 then redis.call('ZREMRANGEBYRANK', index, 0, -(tonumber(limit) + 1)) end
  local left, lives = redis.call('PTTL', index), tonumber(ttl)
  local due = left < lives
  if sweep ~= '1' then
    -- Its sessions live as long as they are loaded, which the listing does not see.
    due = left >= 0 or added == 1
    if left >= 0 then redis.call('PERSIST', index) end
  elseif due then
    -- One that lives longer lists sessions of a time when they lived longer. Set for longer than a session lives, so
    -- that this need not be done for each turn.
    redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('(%.0f', at - lives * 1000))
    redis.call('PEXPIRE', index, string.format('%.0f', lives + math.floor(lives / 16)))
  end
  if principals then enlist(principals, principal, at, ttl, sweep, due) end
end

