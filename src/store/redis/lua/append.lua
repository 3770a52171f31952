-- KEYS: the log, and the listings of sessions and of principals where all are on one server.
-- ARGV: session, epoch of the cursor, turn, its parent or '', epoch of a new log, time to live in ms,
--       turns to keep or 0, bytes to keep or 0, whether the turn opens an exchange, whether it names a model, and a
--       title, record, session id, longest listing, whether to sweep the listings,
--       whether a turn that is there already is to be written for WAIT, principal.
-- Answers 0 (gone), or {1 added or 2 there, the turn before it if it was added, the header}.
local key, index, principals = KEYS[1], KEYS[2], KEYS[3]
local session, cursor, turn, parent, epoch, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local keep, most, opens, record = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9], ARGV[12]
local UNBORN = string.rep('0', 32)
local REMEMBERED = 1024

local h, problem = read(key, session)
if problem then return redis.error_reply(problem) end

local function answer(status, before)
  -- The turn counts; a listing that cannot be kept does not undo it.
  if index then pcall(list, index, principals, ARGV[17], ARGV[13], h.at, ttl, ARGV[14], ARGV[15]) end
  return { status, before, write(h) .. '}' }
end

-- The place of a turn, from the end back to this place, or only among the newest `most` turns.
local function find(id, upto, most)
  local place = h.last
  while h.count > 0 and place >= upto and most > 0 do
    local found, _, back = frame(key, place)
    if not found then return nil, 'SMCORRUPT a frame of the log is damaged' end
    if found == id then return place end
    if back == 0 then return nil end
    place, most = place - back, most - 1
  end
  return nil
end

-- Whether the id is among those of turns that are kept no more.
local function remembered(id)
  if h.ids == 0 then return false end
  local ids = redis.call('GETRANGE', key, h.head, h.base - 1)
  local from = 1
  while true do
    local at = string.find(ids, id, from, true)
    if not at then return false end
    if at % 32 == 1 then return true end
    from = at + 1
  end
end

if h then
  -- Ids grow with time: one that is higher than every other was never here.
  if turn <= h.highest then
    local place, damage = find(turn, h.base, REMEMBERED)
    if damage then return redis.error_reply(damage) end
    if place or remembered(turn) then
      if ARGV[16] == '1' then again(key, h) end
      return answer(2, NO_TURN)
    end
  end
  if cursor ~= h.epoch and not (h.fresh and cursor == UNBORN) then return 0 end
  if parent ~= '' then
    local place, damage = find(parent, h.first, math.huge)
    if damage then return redis.error_reply(damage) end
    if not place then return 0 end
  end
elseif parent ~= '' then
  return 0
end

local created = not h
h = h or begin(session, epoch, true, 0)
-- Each answer is of a later time than the one before, also when the server's clock is put back.
h.at = math.max(now(), h.at + 1)
local size = created and h.head or redis.call('STRLEN', key)
local back = h.count > 0 and size - h.last or 0
if back > 0 and (h.last < h.base or back < FRAME) then
  return redis.error_reply('SMCORRUPT the log is cut off')
end
local framed = frame_of(turn, record, back, opens)
local before = h.newest
if h.count == 0 then h.created = h.at end
if h.count == 0 or opens == '1' then h.opened = size end
if ARGV[10] == '1' then h.model = size end
if ARGV[11] == '1' then h.title = size end
h.count, h.newest, h.last = h.count + 1, turn, size
if turn > h.highest then h.highest = turn end

if created then
  redis.call('SET', key, write(h) .. '}\n' .. framed, 'PX', ttl)
  return answer(1, before)
end

redis.call('APPEND', key, framed)
local function is_within()
  return (keep == 0 or h.count - h.trimmed <= keep) and (most == 0 or kept_bytes(key, h) <= most)
end
-- The oldest go in whole exchanges, and the newest exchange stays.
local place, trimmed = h.first, h.trimmed
while h.first < h.opened and not is_within() do
  repeat
    local _, length = frame(key, place)
    if not length then return redis.error_reply('SMCORRUPT a frame of the log is damaged') end
    place, trimmed = place + FRAME + length + 1, trimmed + 1
    local _, _, _, begins = frame(key, place)
  until begins or place >= h.opened
  h.first, h.trimmed = place, trimmed
end

if h.first - h.base < size + #framed - h.first then
  redis.call('SETRANGE', key, 0, write(h))
  redis.call('PEXPIRE', key, ttl)
  return answer(1, before)
end

-- More of the log is trimmed than kept: write it anew, with the ids of what goes.
local ids, place = {}, h.base
if h.ids > 0 then ids[1] = redis.call('GETRANGE', key, h.head, h.base - 2) end
while place < h.first do
  local id, length = frame(key, place)
  if not id then break end
  ids[#ids + 1] = id
  place = place + FRAME + length + 1
end
ids = string.sub(table.concat(ids), -REMEMBERED * 32) .. '\n'
local known = #write(h)
local newer = redis.call('GETRANGE', key, known, h.head - 1)
local kept = redis.call('GETRANGE', key, h.first, -1)
local moved = h.head + #ids - h.first
-- A name in a turn that goes is forgotten.
local function to(place) return place < h.first and 0 or place + moved end
h.model, h.title, h.opened = to(h.model), to(h.title), to(h.opened)
h.ids, h.base, h.first, h.last = #ids, h.head + #ids, h.first + moved, h.last + moved
redis.call('SET', key, write(h) .. newer .. ids .. kept, 'PX', ttl)
return answer(1, before)
