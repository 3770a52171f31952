-- Adds the next turn to a log that is as the caller knows it: what it becomes the caller has worked out.
-- KEYS: the log, and the listings of sessions and of principals where all are on one server.
-- ARGV: the header's line as it is known, or '' for no log; the log's length; the new header up to its time, and
--       behind the time of its first turn; the frame; time to live in ms; session id, longest listing, whether to sweep
--       the listings; principal.
-- Answers the time, or false when the log is not so: then nothing was done.
local key, index, principals = KEYS[1], KEYS[2], KEYS[3]
local known, before = ARGV[1], ARGV[3]
if redis.call('GETRANGE', key, 0, math.max(#known, 1) - 1) ~= known then return false end
if known ~= '' and redis.call('STRLEN', key) ~= tonumber(ARGV[2]) then return false end

local time = redis.call('TIME')
-- Each answer is of a later time than the one before, also when the server's clock is put back. The time before is
-- where the new one will be.
local last = tonumber(string.sub(known, #before + 1, #before + 16)) or 0
local at = math.max(time[1] * 1000000 + time[2], last + 1)
local now = string.format('%16.0f', at)
-- ,"created": stands between the two times.
local created = known == '' and now or string.sub(known, #before + 28, #before + 43)
local header = before .. now .. ',"created":' .. created .. ARGV[4]
if known == '' then
  redis.call('SET', key, header .. ARGV[5], 'PX', ARGV[6])
else
  redis.call('APPEND', key, ARGV[5])
  redis.call('SETRANGE', key, 0, header)
  redis.call('PEXPIRE', key, ARGV[6])
end
-- The turn counts; a listing that cannot be kept does not undo it.
if index then pcall(list, index, principals, ARGV[10], ARGV[7], at, ARGV[6], ARGV[8], ARGV[9]) end
return at
