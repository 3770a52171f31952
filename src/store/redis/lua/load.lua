-- KEYS: the log.
-- ARGV: session, epoch, count and newest turn of the cursor (count -1: no cursor), time to live in ms that
--       a load is to restore, or 0.
-- Answers false (no log), or {header, whether the cursor is known, the bytes after it}.
local key = KEYS[1]
local h, problem = read(key, ARGV[1])
if problem then return redis.error_reply(problem) end
if not h then return false end
local epoch, count, newest, ttl = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])

-- Where the turns after the cursor begin; nil if it is not of this log.
local function after()
  if count < 0 or epoch ~= h.epoch then return nil end
  if newest == NO_TURN then return count == 0 and h.trimmed == 0 and h.first or nil end
  if count <= h.trimmed or count > h.count then return nil end
  local place = h.last
  for _ = count + 1, h.count do
    local id, _, back = frame(key, place)
    if not id then return nil, 'SMCORRUPT a frame of the log is damaged' end
    place = place - back
  end
  local id, length = frame(key, place)
  if not id then return nil, 'SMCORRUPT a frame of the log is damaged' end
  return id == newest and place + FRAME + length + 1 or nil
end

local place, damage = after()
if damage then return redis.error_reply(damage) end
local bytes = redis.call('GETRANGE', key, place or h.first, -1)
if ttl > 0 and h.count > 0 then
  local left = redis.call('PTTL', key)
  if ttl - left >= math.max(1, math.floor(ttl / 16)) then redis.call('PEXPIRE', key, ARGV[5]) end
end
return { write(h) .. '}', place and 1 or 0, bytes }
