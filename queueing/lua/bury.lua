-- bury: to the dead letters, with the reason's class and the last error.

local bury_unread, bury_head, bury
do -- a script has room for 200 local names
  -- An element that could not be read may hold a token anywhere: what looks like one is masked before it is stored.
  local function without_tokens(text)
    text = string.gsub(text, '("bot_token"%s*:%s*"%d+:)[^"]*', '%1***')
    -- %f: only where digits begin, or a million of them would be looked at a million times.
    return (string.gsub(text, '(%f[%d]%d+:)([%w_-]+)', function(bot, secret)
      return #secret >= 20 and bot .. '***' or nil
    end))
  end

  -- Two messages may have been given the same id: the second letter gets another, of a form that no producer can choose.
  local function store_dead(id, letter)
    local first, number = id, 2
    while redis.call('HEXISTS', DEAD, id) == 1 do
      id = first .. '~' .. number
      number = redis.call('HINCRBY', TOTALS, 'ids', 1) -- counting up would ask as often as there are such letters
    end
    letter.died_at = wall
    redis.call('HSET', DEAD, id, cjson.encode(letter))
    redis.call('ZADD', DEAD_INDEX, wall, id)
    count('dead', 1)
  end

  function bury_unread(element, error)
    local id = 'q-' .. redis.call('HINCRBY', TOTALS, 'ids', 1)
    store_dead(id, { reason = 'malformed', error = error, element = without_tokens(element) })
  end

  -- state: dead, if none is given.
  function bury_head(lane, priority, status_ttl, reason, error, state)
    local _, _, _, lines = tries(priority, lane)
    local message = remove_head(priority, lane, state or 'dead', reason)
    if message.commits and not message.provisional then redis.call('DEL', ended_key(message.id)) end -- see open.commit
    local bot, chat = string.match(lane, '^([^:]*):(.*)$')
    lines = lines .. wall .. '\t' .. reason .. '\t' .. string.match(error, '^[^\n]*') .. '\n'
    store_dead(message.id, {
      reason = reason, error = error, element = string.match(message.entry, '^[^\n]*\n(.*)$'), bot = bot, chat = chat, history = lines,
    })
    if message.tracked then
      set_status(message.id, status_ttl, 'status', state or 'dead', 'error', error, 'reason', reason)
    end
  end

  function bury(lane, priority, status_ttl, reason, error)
    bury_head(lane, priority, status_ttl, reason, error)
    place(lane, now)
  end
end
