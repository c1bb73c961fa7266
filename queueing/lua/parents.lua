-- parents: those that a message waits for. It is `after` provisional ones, whose results it needs, and `behind` the one
-- that held another of its lanes before it, whatever comes of that. TAILS: lane → the id of the last message that came
-- to hold it, as its own lane or by `also`.

local parents = {} -- one name: a script has room for 200
do
  local WAITING_MOST = 65536 -- bytes of the names of lanes that wait for one; others find out when they look again

  local function split(text)
    local parts = {}
    for part in string.gmatch(text or '', '[^,]+') do parts[#parts + 1] = part end
    return parts
  end

  -- Ids that a message is after. What is not known by now will not do: two could wait for each other.
  function parents.named(m)
    local ids = split(m.after)
    for i, id in ipairs(ids) do
      if id == m.id or not open.knows(id) then ids[i] = '?' .. id end
    end
    return ' after=' .. table.concat(ids, ',')
  end

  -- A message comes into a lane. → what its entry says about those before it and the lanes that it holds
  function parents.line_up(m, lane)
    local other = m.also and canonical(m.bot .. ':' .. m.also)
    local before = other and redis.call('HGET', TAILS, other)
    redis.call('HSET', TAILS, lane, m.id)
    if other then redis.call('HSET', TAILS, other, m.id) end
    local words = ' hold=' .. lane .. (other and other ~= lane and ',' .. other or '')
    return before and before ~= m.id and words .. ' behind=' .. before or words
  end

  -- → the id of one that has not ended yet; or nil, and what is wrong if one was not sent; or nil, nil, and what came of
  -- each: { id, result, id, … }
  function parents.of(message)
    local ids, keys, results, waits = split(message.after), {}, {}, nil
    for i, id in ipairs(ids) do keys[i] = ended_key(id) end
    local ended = #ids > 0 and redis.call('MGET', unpack(keys)) or {}
    for i, id in ipairs(ids) do
      local what = ended[i]
      if not what and redis.call('HEXISTS', OPEN, id) == 1 then
        waits = waits or id
      elseif not what or string.sub(what, 1, 1) == '!' then
        local became = what and string.sub(what, 2) or 'not known'
        return nil, 'message ' .. string.gsub(id, '^%?', '') .. ', which had to be sent before it, is ' .. became
      elseif what ~= '=' then
        results[#results + 1] = id
        results[#results + 1] = string.sub(what, 2)
      end
    end
    if not waits and message.behind and redis.call('HEXISTS', OPEN, message.behind) == 1 then waits = message.behind end
    if waits then return waits end
    return nil, nil, results
  end

  -- What came of those that it is after leaves with it.
  function parents.use(message)
    for _, id in ipairs(split(message.after)) do open.keep_on(id) end
  end

  -- The lane's head waits for it.
  function parents.wait(id, lane)
    local words = redis.call('HGET', OPEN, id)
    if #words > WAITING_MOST or string.find(words .. ' ', ' ' .. lane .. ' ', 1, true) then return end
    redis.call('HSET', OPEN, id, words .. ' ' .. lane)
  end

  local function close(message, what)
    local words = redis.call('HGET', OPEN, message.id) or ''
    redis.call('HDEL', OPEN, message.id)
    if message.provisional then open.keep(message.id, what) end
    open.wake(words)
    for _, lane in ipairs(split(message.hold)) do
      if redis.call('HGET', TAILS, lane) == message.id then redis.call('HDEL', TAILS, lane) end
    end
  end

  -- A message has left. detail: of one that was sent, its result; of a dead one, the reason.
  function parents.note_end(message, state, detail)
    if message.open then close(message, state == 'sent' and '=' .. detail or '!' .. state) end
    if message.awaited then redis.call('PUBLISH', ENDS, message.id) end
    if message.group then count_in_group(message.group, detail and state ~= 'sent' and 'dead:' .. detail or state, 1) end
  end
end
