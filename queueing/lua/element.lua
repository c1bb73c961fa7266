-- element: what stands in a list as JSON, read and checked as far as the queue itself acts upon it; the rest of the checks
-- is the reader's (queueing/message.py, decode).

-- default_ttl: of what brings no ttl, ms; nil: it never expires. Whoever puts elements into lanes sets it.
local read, marked, entry_of, default_ttl
do -- a script has room for 200 local names
  local function given(value)
    if value ~= nil and value ~= cjson.null then return value end
  end

  -- Keeps a token that came with a message, beside the one that is known to work.
  local noted
  local function note_token(bot, token)
    if noted[bot] == token then return end
    noted[bot] = token
    if redis.call('HGET', TOKENS, bot) ~= token then redis.call('HSET', NEW_TOKENS, bot, token) end
  end

  local known -- bots that were found to be named well
  at_start(function() noted, known = {}, {} end)

  -- → bot, or nil and what is wrong
  local function bot_of(fields, default_bot)
    local token = given(fields.bot_token)
    if token then
      local bot = type(token) == 'string' and #token <= 64 and string.match(token, '^%d+$')
      if bot then return bot end -- it stands for a token that was taken out before
      bot = type(token) == 'string' and #token <= 256 and string.match(token, '^(%d+):[%w_-]+$')
      if not bot then return nil, 'bot_token must be digits, a colon, and letters, digits, _ or -' end
      note_token(bot, token)
      return bot
    end
    local bot = given(fields.bot) or default_bot
    if known[bot] then return bot end
    if bot == '' then return nil, 'bot_token is missing, and no bot is configured' end
    if type(bot) ~= 'string' or #bot > 64 or not string.match(bot, '^[%w_-]+$') then
      return nil, 'bot must be the number of a bot, as a string'
    end
    known[bot] = true
    return bot
  end

  -- The lane of what is not for a chat of Telegram ('' if none is given), or nil and what is wrong.
  local function lane_of(fields)
    local lane = given(fields.lane)
    if not lane then return '' end
    if type(lane) == 'string' and #lane <= 128 and string.match(lane, '^[%w_.@+-]+$') then return lane end
    return nil, 'lane must be 1 to 128 letters, digits or any of _ . @ + -'
  end

  -- → the one name of the chat, or nil and what is wrong. The rule of message.canonical_chat.
  local function chat_of(fields)
    local chat = given(fields.chat_id)
    if not chat and type(fields.kwargs) == 'table' then chat = given(fields.kwargs.chat_id) end
    if not chat then return lane_of(fields) end
    if type(chat) == 'string' and #chat <= 15 and string.find(chat, '^-?[1-9]%d*$') then return chat end -- most are
    local number = type(chat) == 'number' and chat
    if type(chat) == 'string' then
      -- In two steps, none of which goes back: one pattern takes a time that grows with the square of the spaces.
      local name, rest = string.match(chat, '^%s*(%S*)()')
      if string.find(chat, '%S', rest) then name = '' end
      if string.match(name, '^@[%w_]+$') and #name <= 65 then return string.lower(name) end
      number = string.match(name, '^-?%d+$') and #name <= 17 and tonumber(name)
    end
    if number and number == math.floor(number) and math.abs(number) < 2 ^ 53 then
      return number == 0 and '0' or string.format('%.0f', number) -- there is a -0
    end
    return nil, 'chat_id must be a whole number or an @name'
  end

  local function is_id(value)
    if type(value) ~= 'string' or #value > 128 then return false end
    return (string.find(value, '^%w+$') or string.find(value, '^[%w_.:@+-]+$')) ~= nil -- the first is faster
  end

  local AFTER_MOST = 100

  -- → the ids of `after`, with commas between them, nil if there are none; or nil and what is wrong
  local function after_of(fields)
    local ids = given(fields.after)
    if ids == nil then return nil end
    local is_list = type(ids) == 'table' and #ids >= 1 and #ids <= AFTER_MOST
    for _, id in ipairs(is_list and ids or {}) do is_list = is_list and is_id(id) end
    if is_list then return table.concat(ids, ',') end
    return nil, 'after must be 1 to 100 ids of messages'
  end

  local function id_of(fields)
    local id = given(fields.id)
    if not id then return 'q-' .. redis.call('HINCRBY', TOTALS, 'ids', 1) end
    if is_id(id) then return id end
    return nil, 'id must be 1 to 128 letters, digits or any of _ . : @ + -'
  end

  local YEAR_MS = 366 * 24 * 3600 * 1000

  local function text_up_to(value, most) return type(value) == 'string' and #value >= 1 and #value <= most end

  -- → nil, or what is wrong with the fields that the queue itself acts upon. The rules of queueing/message.py.
  local function wrong_of(fields)
    local ttl, send_at, key = given(fields.ttl), given(fields.send_at), given(fields.dedup_key)
    if ttl and not (type(ttl) == 'number' and ttl > 0 and ttl * 1000 <= YEAR_MS) then
      return 'ttl must be seconds, more than 0 and at most 366 days'
    end
    if send_at and not (type(send_at) == 'number' and send_at >= 0 and send_at * 1000 <= wall + YEAR_MS) then
      return 'send_at must be Unix seconds, at most 366 days ahead'
    end
    if key and not text_up_to(key, 256) then return 'dedup_key must be a string of 1 to 256 bytes' end
    for _, name in ipairs({ 'also', 'group' }) do
      local value = given(fields[name])
      if value and not (text_up_to(value, 128) and string.match(value, '^[%w_.@+-]+$')) then
        return name .. ' must be 1 to 128 letters, digits or any of _ . @ + -'
      end
    end
  end

  -- The token is kept once, by bot; in the element the bot's number stands for it.
  local function without_token(element, fields, bot)
    if not given(fields.bot_token) then return element end
    -- As a whole string, wherever it stands: a text that only mentions it stays as it is. A token has no magic but `-`.
    return (string.gsub(element, '"' .. string.gsub(fields.bot_token, '%-', '%%-') .. '"', '"' .. bot .. '"'))
  end

  -- What an entry says before its element, see lane.lua. Paid: the rule of Message.paid.
  local function flags_of(fields)
    local flags = (fields.track == true or fields.awaited == true) and 't' or ''
    if fields.uncertain == 'hold' then flags = flags .. 'h' end
    if fields.uncertain == 'resend' then flags = flags .. 'r' end
    if type(fields.kwargs) == 'table' and fields.kwargs.allow_paid_broadcast == true then flags = flags .. 'p' end
    if fields.provisional == true then flags = flags .. 'v' end
    if fields.open == true or given(fields.also) then flags = flags .. 'o' end
    if fields.awaited == true then flags = flags .. 'w' end
    return flags == '' and '-' or flags
  end

  -- Fields that most elements have not.
  local RARE = {
    bot_token = true, ttl = true, send_at = true, dedup_key = true, also = true, group = true, after = true, kwargs = true,
    track = true, awaited = true, provisional = true, open = true, uncertain = true,
  }

  -- Notes in m what they say. → nil, or what is wrong
  local function read_rare(m, fields)
    local wrong = wrong_of(fields)
    if wrong then return wrong end
    m.after, wrong = after_of(fields)
    if wrong then return wrong end
    m.also, m.group, m.dedup_key = given(fields.also), given(fields.group), given(fields.dedup_key)
    m.provisional, m.holds = fields.provisional == true, fields.open == true or m.also ~= nil
    m.opens = m.provisional or m.holds
    m.tracked = fields.track == true or fields.awaited == true
    m.ttl = given(fields.ttl) and fields.ttl * 1000 or default_ttl
    m.send_at = given(fields.send_at) and fields.send_at * 1000 or 0
    m.flags = flags_of(fields)
    m.element = without_token(m.element, fields, m.bot)
  end

  -- What an element asks for: { bot, chat, id, priority, tracked, flags, ttl, send_at (both ms), dedup_key, after, also,
  -- group, provisional, opens: whether others may wait for it, holds: whether for its lanes, accepted (ms, if it was
  -- looked at before), element without token }; or nil and what is wrong.
  function read(element, default_bot)
    local ok, fields = pcall(cjson.decode, element)
    if not ok or type(fields) ~= 'table' or string.sub(element, 1, 1) ~= '{' then return nil, 'not a JSON object' end
    local bot, chat, wrong
    bot, wrong = bot_of(fields, default_bot)
    if not bot then return nil, wrong end
    chat, wrong = chat_of(fields)
    if not chat then return nil, wrong end
    local m = {
      bot = bot, chat = chat, id_is_new = not given(fields.id),
      priority = fields.priority == 'interactive' and 'i' or fields.priority == 'bulk' and 'b' or 'n',
      ttl = default_ttl, send_at = 0, flags = '-', element = element,
      accepted = type(fields.accepted) == 'number' and math.max(0, math.min(fields.accepted, wall)) or nil,
    }
    for name in pairs(fields) do
      if RARE[name] then
        wrong = read_rare(m, fields)
        if wrong then return nil, wrong end
        break
      end
    end
    m.id, wrong = id_of(fields)
    if not m.id then return nil, wrong end
    return m
  end

  -- Its element, that says what was found at the first look, for whoever looks next. At its end: of two fields with one
  -- name the last counts, and it may say `"id": null` itself.
  function marked(m)
    local marks = (m.accepted and '' or string.format(',"accepted":%.0f', wall))
      .. (m.id_is_new and ',"id":"' .. m.id .. '"' or '')
    return string.match(m.element, '^(.*)}') .. marks .. '}'
  end

  -- What is new to the lane that it comes into, and to those that wait for it.
  local function linked(m, lane)
    local words = m.group and ' group=' .. m.group or ''
    if m.after then words = words .. parents.named(m) end
    if m.holds then words = words .. parents.line_up(m, lane) end
    if m.opens then open.note_place(m.id, m.priority, lane) end
    local waits = m.after or string.find(words, ' behind=', 1, true)
    return waits and string.gsub(m.flags, '^-?', 'a', 1) or m.flags, words
  end

  local last_ms, last_text -- many came in the same millisecond
  local function whole(ms)
    if ms ~= last_ms then last_ms, last_text = ms, string.format('%.0f', ms) end
    return last_text
  end

  -- accepted: ms; lane: that it comes into now.
  function entry_of(m, accepted, lane)
    local expires = m.ttl and string.format(' %.0f', accepted + m.ttl) or ''
    local flags, words = m.flags, ''
    if m.opens or m.after or m.group then flags, words = linked(m, lane) end
    return m.id .. ' ' .. flags .. ' ' .. whole(accepted) .. expires .. words .. '\n' .. m.element
  end
end
