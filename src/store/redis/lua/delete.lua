-- KEYS: the log, and the listings of sessions and of principals where all are on one server.
-- ARGV: session, epoch of the tombstone, its time to live in ms, session id, whether a tombstone that is there
--       already is to be written for WAIT, principal.
-- The same deletion sent twice deletes once: what began after it has its epoch.
-- Answers the time of the tombstone, or '0' when there is one no more.
local key, index, principals = KEYS[1], KEYS[2], KEYS[3]
local line = redis.pcall('GETRANGE', key, 0, 1023)
local time = now()
if type(line) == 'string' and string.match(line, HEADER) then
  local h = read(key, ARGV[1])
  if h and h.epoch == ARGV[2] then
    if ARGV[5] == '1' then again(key, h) end
    return h.count == 0 and string.format('%.0f', h.at) or '0'
  end
  -- Later than all of the log, also when the server's clock is put back.
  if h then time = math.max(time, h.at + 1) end
end
-- A server whose memory is full refuses the tombstone unless something was deleted before it.
redis.call('DEL', key)
redis.call('SET', key, write(begin(ARGV[1], ARGV[2], false, time)) .. '}\n', 'PX', ARGV[3])
if index then pcall(unlist, index, principals, ARGV[6], ARGV[4]) end
return string.format('%.0f', time)
