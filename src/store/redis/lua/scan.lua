-- Names of keys after a cursor, which means something only to the server process that gave it: another begins at its start.
-- ARGV: run id of the server that gave the cursor, cursor, pattern, number of keys to look at.
-- Answers {run id of this server, cursor, names}.
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local cursor = ARGV[1] == server and ARGV[2] or '0'
local found = redis.call('SCAN', cursor, 'MATCH', ARGV[3], 'COUNT', ARGV[4])
return { server, found[1], found[2] }
