#!lua flags=allow-oom
-- trim: the oldest dead letters go when there are too many of them, or they are too old. It is counted: dead_dropped.
--
-- KEYS  1 front door
-- ARGV  1 dead letters kept   2 for how long, ms   3 removed at most   4 operation id
-- Returns the number removed, a second time too
-- include: keys

local kept, age_ms, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local done = redis.call('GET', operation_key(ARGV[4]))
if done then return tonumber(done) end
local old = redis.call('ZCOUNT', DEAD_INDEX, '-inf', '(' .. wall - age_ms)
local excess = redis.call('ZCARD', DEAD_INDEX) - kept
local many = math.min(most, math.max(old, excess))
if many <= 0 then return 0 end
redis.call('HDEL', DEAD, unpack(redis.call('ZRANGE', DEAD_INDEX, 0, many - 1)))
redis.call('ZREMRANGEBYRANK', DEAD_INDEX, 0, many - 1)
count('dead_dropped', many)
write_counts()
redis.call('SET', operation_key(ARGV[4]), many, 'EX', 60)
return many
