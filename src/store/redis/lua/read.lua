-- KEYS: the log.
-- ARGV: session, number of turns to pass over, most turns, most bytes of records.
-- Answers false (no log), or {header, number of turns before the first of these, their frames}.
local key = KEYS[1]
local h, problem = read(key, ARGV[1])
if problem then return redis.error_reply(problem) end
if not h then return false end
local from, most, most_bytes = math.max(tonumber(ARGV[2]), h.trimmed), tonumber(ARGV[3]), tonumber(ARGV[4])
if from >= h.count then return { write(h) .. '}', h.count, '' } end
local DAMAGED = 'SMCORRUPT a frame of the log is damaged'

-- From the nearer end.
local place = h.first
if from - h.trimmed <= h.count - from then
  for _ = h.trimmed + 1, from do
    local _, length = frame(key, place)
    if not length then return redis.error_reply(DAMAGED) end
    place = place + FRAME + length + 1
  end
else
  place = h.last
  for _ = from + 2, h.count do
    local _, _, back = frame(key, place)
    if not back then return redis.error_reply(DAMAGED) end
    place = place - back
  end
end

local stop, turns, bytes = place, 0, 0
while turns < most and from + turns < h.count do
  local _, length = frame(key, stop)
  if not length then return redis.error_reply(DAMAGED) end
  bytes = bytes + length
  if turns > 0 and bytes > most_bytes then break end
  stop, turns = stop + FRAME + length + 1, turns + 1
end
return { write(h) .. '}', from, redis.call('GETRANGE', key, place, stop - 1) }
