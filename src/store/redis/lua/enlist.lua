-- KEYS: the listing of principals. ARGV: principal, time, time to live in ms, whether to sweep the listing.
local due = redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3])
enlist(KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], due)
return 1
