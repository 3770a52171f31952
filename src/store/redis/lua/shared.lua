-- What the scripts have in common: reading and writing the session header, walking the frames.
-- The layout is described in src/store/redis/layout.md.

local NO_TURN = string.rep('0', 32)
local FRAME = 89 -- bytes of a frame's first line, its line feed included
local HEADER = '^{"v":"(1%.%d+)","head": *(%d+),"session":"(%x+)","epoch":"(%x+)","fresh":(%d),'
  .. '"count": *(%d+),"trimmed": *(%d+),"at": *(%d+),"created": *(%d+),"newest":"(%x+)","highest":"(%x+)",'
  .. '"ids": *(%d+),"first": *(%d+),"last": *(%d+),"opened": *(%d+),"model": *(%d+),"title": *(%d+)'

-- The header of a log or tombstone; nil if there is none. Else nil and what is wrong with it.
local function read(key, session)
  local line = redis.call('GETRANGE', key, 0, 1023)
  if line == '' then return nil end
  local v, head, owner, epoch, fresh, count, trimmed, at, created, newest, highest, ids, first, last, opened, model,
    title = string.match(line, HEADER)
  if not v then
    local other = string.match(line, '^{"v":"([%d.]+)"')
    if other and #other <= 16 and not string.find(other, '^1%.') then
      return nil, 'SMVERSION the stored log has layout version ' .. other .. '; this program reads 1.x'
    end
    return nil, 'SMCORRUPT the value is no session log'
  end
  if owner ~= session then return nil, 'SMFOREIGN the log is of another session' end
  head, ids = tonumber(head), tonumber(ids)
  return {
    v = v, head = head, session = owner, epoch = epoch, fresh = fresh == '1',
    count = tonumber(count), trimmed = tonumber(trimmed), at = tonumber(at), created = tonumber(created),
    newest = newest, highest = highest,
    ids = ids, base = head + ids, first = tonumber(first), last = tonumber(last),
    opened = tonumber(opened), model = tonumber(model), title = tonumber(title),
  }
end

-- The part of the header that this version knows. What a newer minor version put behind it stays.
local function write(h)
  return string.format(
    '{"v":"%s","head":%5d,"session":"%s","epoch":"%s","fresh":%d,"count":%10d,"trimmed":%10d,"at":%16.0f,'
    .. '"created":%16.0f,"newest":"%s","highest":"%s","ids":%6d,"first":%10d,"last":%10d,"opened":%10d,"model":%10d,'
    .. '"title":%10d',
    h.v, h.head, h.session, h.epoch, h.fresh and 1 or 0, h.count, h.trimmed, h.at, h.created,
    h.newest, h.highest, h.ids, h.first, h.last, h.opened, h.model, h.title)
end

-- A log without turns.
local function begin(session, epoch, fresh, at)
  local h = {
    v = '1.0', head = 0, session = session, epoch = epoch, fresh = fresh, count = 0, trimmed = 0, at = at, created = at,
    newest = NO_TURN, highest = NO_TURN, ids = 0, first = 0, last = 0, opened = 0, model = 0, title = 0,
  }
  h.head = #write(h) + 2
  h.base, h.first = h.head, h.head
  return h
end

local FRAME_LINE = '^{"turn":"(%x+)","len": *(%d+),"back": *(%d+),"opens":(%d)}\n$'

-- The turn, the length of its record, the length of the frame before, and whether it opens an exchange, of the frame at
-- this place.
local function frame(key, place)
  local id, length, back, opens = string.match(redis.call('GETRANGE', key, place, place + FRAME - 1), FRAME_LINE)
  if not id then return nil end
  return id, tonumber(length), tonumber(back), opens == '1'
end

local function frame_of(id, record, back, opens)
  return string.format('{"turn":"%s","len":%10d,"back":%10d,"opens":%s}\n', id, #record, back, opens) .. record .. '\n'
end

-- The bytes of the records that a log keeps.
local function kept_bytes(key, h)
  return redis.call('STRLEN', key) - h.first - (h.count - h.trimmed) * (FRAME + 1)
end

-- Writes what is there once more, for calls that wait for its replication.
local function again(key, h)
  local left = redis.call('PTTL', key)
  -- A log that an operator made last for ever has no time left: setting that would end it.
  if left > 0 then redis.call('PEXPIRE', key, left) else redis.call('SETRANGE', key, 0, write(h)) end
end

-- Microseconds since 1970.
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

