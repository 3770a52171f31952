-- KEYS: the log, and the listing where both are on one server.
-- ARGV: session, epoch of the tombstone, its time to live in ms, session id, whether a tombstone that is there
--       already is to be written for WAIT.
-- The same deletion sent twice deletes once: what began after it has its epoch.
local key, index = KEYS[1], KEYS[2]
local line = redis.pcall('GETRANGE', key, 0, 1023)
if type(line) == 'string' and string.match(line, HEADER) then
  local h = read(key, ARGV[1])
  if h and h.epoch == ARGV[2] then
    if ARGV[5] == '1' then redis.call('PEXPIRE', key, redis.call('PTTL', key)) end
    return 0
  end
end
redis.call('SET', key, write(begin(ARGV[1], ARGV[2], false, now())) .. '}\n', 'PX', ARGV[3])
if index then redis.pcall('ZREM', index, ARGV[4]) end
return 1
