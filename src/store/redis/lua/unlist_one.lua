-- Takes a session off the listing, and its principal off that of principals when it was the last.
local function unlist(index, principals, principal, id)
  if redis.call('ZREM', index, id) == 1 and redis.call('EXISTS', index) == 0 then
    redis.call('ZREM', principals, principal)
  end
end

