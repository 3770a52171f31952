-- KEYS: the listing. ARGV: pairs of a session id and the time at which it was seen, or was deleted.
-- A session that moved since stays. Answers whether any is left.
for place = 1, #ARGV, 2 do
  local at = redis.call('ZSCORE', KEYS[1], ARGV[place])
  if at and tonumber(at) <= tonumber(ARGV[place + 1]) then redis.call('ZREM', KEYS[1], ARGV[place]) end
end
return redis.call('EXISTS', KEYS[1])
