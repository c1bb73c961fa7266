#!lua flags=allow-oom
-- redrive: dead letters go back into their lanes, as if accepted now, with no tries behind them. What could not be read
-- goes through the front door again.
--
-- KEYS  1 front door
-- ARGV  1 operation id   2 1: to the head of its lane, behind one that is tried; 0: to the tail   3 limits, see limits.lua
--       4 default ttl, ms, or ''   then ids, in the order in which they are to be sent
-- Returns how many of them were dead letters, a second time too
-- include: keys, status, aliases, limits, bell, open, parents, lane, holder, element

local done = redis.call('GET', operation_key(ARGV[1]))
if done then return tonumber(done) end
local to_head = ARGV[2] == '1'
read_limits(ARGV[3])
default_ttl = tonumber(ARGV[4])

-- The head is another one's now, and may leave on the bot's other account.
local function move_account(lane, priority, was, is)
  local from, to = account_for(lane, was), account_for(lane, is)
  local served = from ~= to and redis.call('ZSCORE', ready_key(priority, from), lane)
  if not served then return end
  redis.call('ZREM', ready_key(priority, from), lane)
  make_ready(lane, priority, is, served)
end

local function push_head(lane, priority, entry)
  local key = list_key(priority, lane)
  local first = redis.call('LINDEX', key, 0)
  if not first then return push(lane, priority, entry) end
  count_laned(lane, priority, 1)
  local tried = redis.call('HGET', TRIES, priority .. ' ' .. lane)
  -- The head is in some process's hands, or what is noted of its tries is noted of the head.
  if in_flight(lane) == priority or (tried and tried ~= '0 0 0\n') then
    redis.call('LINSERT', key, 'AFTER', first, entry)
  elseif tried then
    -- It waits for another message, and what holds it up holds this one up no more.
    redis.call('LPUSH', key, entry)
    redis.call('HDEL', TRIES, priority .. ' ' .. lane)
    leave_ready(lane)
    redis.call('ZADD', DUE, 'XX', now, lane)
  else
    redis.call('LPUSH', key, entry)
    move_account(lane, priority, first, entry)
  end
end

local function redrive(id, letter)
  local m = letter.bot and read(letter.element, letter.bot)
  if not m then return redis.call('RPUSH', FRONT, letter.element) end
  m.id = id
  local lane = canonical(letter.bot .. ':' .. letter.chat)
  if m.tracked then
    redis.call('HSETNX', status_key(id), 'created_at', wall)
    redis.call('HDEL', status_key(id), 'error', 'attempts', 'reason')
    set_status(id, OPEN_STATUS_MS, 'status', 'pending', 'bot', letter.bot, 'chat', letter.chat)
  end
  if m.group then count_in_group(m.group, 'dead:' .. letter.reason, -1) end
  if m.opens then open.add(id) end
  -- Where another lane is held with its own, what comes first there came first.
  local to = to_head and not m.also and push_head or push
  to(lane, m.priority, entry_of(m, wall, lane))
end

local first, last, step = 5, #ARGV, 1
if to_head then first, last, step = #ARGV, 5, -1 end
done = 0
for i = first, last, step do
  local letter = redis.call('HGET', DEAD, ARGV[i])
  redis.call('ZREM', DEAD_INDEX, ARGV[i])
  if letter then
    redis.call('HDEL', DEAD, ARGV[i])
    redrive(ARGV[i], cjson.decode(letter))
    done = done + 1
  end
end
count('replayed', done)
write_counts()
-- Long enough for any second try of the client.
redis.call('SET', operation_key(ARGV[1]), done, 'EX', 60)
ring()
return done
