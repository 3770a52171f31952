-- Erases a log, with a tombstone or without. What is none, a tombstone and a younger log stay as they are.
-- KEYS: the log, and the listings of sessions and of principals where all are on one server.
-- ARGV: session, the time in microseconds before which its newest turn was appended, or '' for any time;
--       epoch of the tombstone, or '' for none, its time to live in ms; session id, principal;
--       whether a tombstone that is there already is to be written for WAIT.
-- Answers the time of the erasure, its records and their bytes; the time is '0' where nothing was erased. Sent again, the
-- same erasure answers its time and no records.
local key, index, principals = KEYS[1], KEYS[2], KEYS[3]
local line = redis.pcall('GETRANGE', key, 0, 1023)
if line == '' then return { '0', 0, 0 } end
local time, records, bytes = now(), 0, 0
local h
if type(line) == 'string' and string.match(line, HEADER) then h = read(key, ARGV[1]) end
if h then
  if h.epoch == ARGV[3] then
    if ARGV[7] == '1' then again(key, h) end
    -- What began after it has its epoch, and stays.
    return { h.count == 0 and string.format('%.0f', h.at) or '0', 0, 0 }
  end
  if h.count == 0 or ARGV[2] ~= '' and h.at >= tonumber(ARGV[2]) then return { '0', 0, 0 } end
  time, records, bytes = math.max(time, h.at + 1), h.count - h.trimmed, kept_bytes(key, h)
elseif ARGV[2] ~= '' then
  -- What cannot be read has no age.
  return { '0', 0, 0 }
end
redis.call('DEL', key)
if ARGV[3] ~= '' then
  redis.call('SET', key, write(begin(ARGV[1], ARGV[3], false, time)) .. '}\n', 'PX', ARGV[4])
end
if index then pcall(unlist, index, principals, ARGV[6], ARGV[5]) end
return { string.format('%.0f', time), records, bytes }
