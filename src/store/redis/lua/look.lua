-- KEYS: the log.
-- Answers false (no log), or {the header's line, time to live in ms, bytes of its records, the record's header line that
-- names the model, and the one that gives the title}.
local key = KEYS[1]
local line = redis.call('GETRANGE', key, 0, 1023)
if line == '' then return false end
local first, model, title = string.match(line, '"first": *(%d+),.*"model": *(%d+),"title": *(%d+)')
local count, trimmed = string.match(line, '"count": *(%d+),"trimmed": *(%d+)')
if not first or not count then return { line, -1, 0, '', '' } end

local function head(place)
  place = tonumber(place)
  if place == 0 then return '' end
  local _, length = frame(key, place)
  if not length then return '' end
  local start = place + FRAME
  local text = redis.call('GETRANGE', key, start, start + math.min(length, 4096) - 1)
  if not string.find(text, '\n', 1, true) then text = redis.call('GETRANGE', key, start, start + length - 1) end
  return string.match(text, '^[^\n]*')
end

local h = { first = tonumber(first), count = tonumber(count), trimmed = tonumber(trimmed) }
local named = head(model)
return { line, redis.call('PTTL', key), kept_bytes(key, h), named, title == model and named or head(title) }
