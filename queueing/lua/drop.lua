#!lua flags=allow-oom
-- drop: dead letters go for good, by a person's order.
--
-- KEYS  1 front door
-- ARGV  1 operation id   then ids
-- Returns how many of them were dead letters, a second time too
-- include: keys

local done = redis.call('GET', operation_key(ARGV[1]))
if done then return tonumber(done) end
done = redis.call('HDEL', DEAD, unpack(ARGV, 2))
redis.call('ZREM', DEAD_INDEX, unpack(ARGV, 2))
count('dropped', done)
write_counts()
redis.call('SET', operation_key(ARGV[1]), done, 'EX', 60)
return done
