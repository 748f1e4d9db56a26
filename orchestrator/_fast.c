/* What C does faster: the header scanner of `sip.parser`, headers of Event Socket events for `esl.codec` and batches of
 * datagrams for `runtime.udp`.
 *
 * Everything here has a twin in Python that says what is right. The scanner takes the usual message only and gives None
 * for any other; whoever calls it asks the twin then. So it never refuses a message and never reads one otherwise.
 */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>
#include <string.h>
#ifdef __linux__
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#endif

/* --- classes of octets (sip/grammar.py, sip/uri.py, sip/parser.py) --------------------------------------------------- */

enum { TOKEN = 1, HOST = 2, ALNUM = 4, USER = 8, PARAM = 16, DIGIT = 32, ADDRESS6 = 64, DISPLAY = 128 };

static unsigned char classes[256];

static void add_class(const char *octets, int bit)
{
    for (; *octets; octets++)
        classes[(unsigned char)*octets] |= bit;
}

static void fill_classes(void)
{
    for (int c = '0'; c <= '9'; c++)
        classes[c] |= TOKEN | HOST | ALNUM | USER | PARAM | DIGIT | ADDRESS6 | DISPLAY;
    for (int c = 'a'; c <= 'z'; c++) {
        classes[c] |= TOKEN | HOST | ALNUM | USER | PARAM | DISPLAY;
        classes[c - 'a' + 'A'] |= TOKEN | HOST | ALNUM | USER | PARAM | DISPLAY;
    }
    add_class("abcdefABCDEF:.", ADDRESS6);
    add_class("-.!%*_+`'~", TOKEN | DISPLAY);
    add_class(" ", DISPLAY);
    add_class("-._", HOST);
    add_class("-_.!~*'()&=+$,;?/#", USER);
    add_class("-_.!~*'()[]/:&+$", PARAM);
}

/* --- a cursor over one line; each function returns 0 where the text is not of the usual kind ------------------------- */

typedef struct { const char *at, *end; } Cursor;

static int skip(Cursor *c, int bit)
{
    const char *from = c->at;
    while (c->at < c->end && classes[(unsigned char)*c->at] & bit)
        c->at++;
    return c->at > from;
}

static int is(const Cursor *c, const char *text, size_t size)
{
    return (size_t)(c->end - c->at) >= size && memcmp(c->at, text, size) == 0;
}

static int take(Cursor *c, const char *text, size_t size)
{
    if (!is(c, text, size))
        return 0;
    c->at += size;
    return 1;
}
#define TAKE(cursor, text) take(cursor, text, sizeof(text) - 1)

static int number(Cursor *c, int digits, long *value)
{
    const char *from = c->at;
    *value = 0;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
        if (c->at - from == digits)
            return 0;
        *value = *value * 10 + (*c->at++ - '0');
    }
    return c->at > from;
}

typedef struct { const char *at; Py_ssize_t size; } Text;

static int host_and_port(Cursor *c, Text *host, long *port)
{
    host->at = c->at;
    *port = 0;
    if (c->at < c->end && *c->at == '[') {
        c->at++;
        if (!skip(c, ADDRESS6) || !TAKE(c, "]"))
            return 0;
    } else {
        if (c->at == c->end || !(classes[(unsigned char)*c->at] & ALNUM))
            return 0;
        skip(c, HOST);
    }
    host->size = c->at - host->at;
    if (TAKE(c, ":"))
        return c->at < c->end && *c->at != '0' && number(c, 5, port) && *port <= 65535;
    return 1;
}

typedef struct { int secure; Text user, host, params; long port; } Address;

/* SIP_URI: without escapes, at most one parameter. */
static int sip_uri(Cursor *c, Address *a)
{
    if (!TAKE(c, "sip"))
        return 0;
    a->secure = TAKE(c, "s");
    if (!TAKE(c, ":"))
        return 0;
    const char *from = c->at;
    a->user.at = from;
    a->user.size = 0;
    if (skip(c, USER) && c->at < c->end && *c->at == '@')
        a->user.size = c->at++ - from;
    else
        c->at = from;
    if (!host_and_port(c, &a->host, &a->port))
        return 0;
    a->params.at = c->at;
    if (TAKE(c, ";")) {
        if (!skip(c, PARAM))
            return 0;
        if (is(c, "=", 1)) {
            c->at++;
            if (!skip(c, PARAM))
                return 0;
        }
    }
    a->params.size = c->at - a->params.at;
    return 1;
}

/* TAGGED: a name-addr with nothing but a tag behind it. */
static int tagged(Cursor *c, Text *tag)
{
    Address unused;
    if (TAKE(c, "\"")) {
        while (c->at < c->end && *c->at != '"' && *c->at != '\\')
            c->at++;
        if (!TAKE(c, "\""))
            return 0;
        while (c->at < c->end && (*c->at == ' ' || *c->at == '\t'))
            c->at++;
    } else
        skip(c, DISPLAY);
    if (!TAKE(c, "<") || !sip_uri(c, &unused) || !TAKE(c, ">"))
        return 0;
    tag->at = NULL;
    if (TAKE(c, ";tag=")) {
        tag->at = c->at;
        if (!skip(c, TOKEN))
            return 0;
        tag->size = c->at - tag->at;
    }
    return c->at == c->end;
}

typedef struct { Text transport, host, branch, tail; long port; } Via;

/* TOP_VIA: the two orders of parameters that cannot repeat one; what follows a comma is left alone. */
static int top_via(Cursor *c, Via *v)
{
    if (!TAKE(c, "SIP/2.0/"))
        return 0;
    v->transport.at = c->at;
    while (c->at < c->end && *c->at >= 'A' && *c->at <= 'Z')
        c->at++;
    v->transport.size = c->at - v->transport.at;
    if (v->transport.size == 0 || !TAKE(c, " ") || !host_and_port(c, &v->host, &v->port))
        return 0;
    v->tail.at = c->at;
    int first = TAKE(c, ";rport;branch=");
    if (!first && !TAKE(c, ";branch="))
        return 0;
    v->branch.at = c->at;
    if (!skip(c, TOKEN))
        return 0;
    v->branch.size = c->at - v->branch.at;
    if (!first) {
        if (TAKE(c, ";rport") && TAKE(c, "=") && !skip(c, DIGIT))
            return 0;
        if (TAKE(c, ";received=")) {
            const char *from = c->at;
            while (c->at < c->end && ((*c->at >= '0' && *c->at <= '9') || *c->at == '.'))
                c->at++;
            if (c->at == from)
                return 0;
        }
    }
    v->tail.size = c->at - v->tail.at;
    return c->at == c->end || *c->at == ',';
}

/* --- names of headers -------------------------------------------------------------------------------------------------- */

enum { OTHER, VIA, FROM, TO, CALL_ID, CSEQ, LENGTH, HOPS, TYPE, EXPIRES };
#define CORE (1 << VIA | 1 << FROM | 1 << TO | 1 << CALL_ID | 1 << CSEQ | 1 << LENGTH)

typedef struct { PyObject *spelling, *name; int kind; } Spelling;

#define SLOTS 2048 /* a power of two, several times the number of spellings */
static Spelling spellings[SLOTS];
static int spelling_count;
static PyObject *read_name; /* of a line whose name is not in the table */

static unsigned hash_of(const char *text, Py_ssize_t size)
{
    unsigned hash = 2166136261u;
    for (Py_ssize_t n = 0; n < size; n++)
        hash = (hash ^ (unsigned char)text[n]) * 16777619u;
    return hash ^ hash >> 15;
}

static int kind_of(PyObject *name)
{
    static const struct { const char *name; int kind; } known[] = {
        {"via", VIA}, {"from", FROM}, {"to", TO}, {"call-id", CALL_ID}, {"cseq", CSEQ}, {"content-length", LENGTH},
        {"max-forwards", HOPS}, {"content-type", TYPE}, {"expires", EXPIRES},
    };
    for (size_t n = 0; n < sizeof(known) / sizeof(*known); n++)
        if (strcmp(PyBytes_AS_STRING(name), known[n].name) == 0)
            return known[n].kind;
    return OTHER;
}

/* The place of a spelling in the table, or the empty one where it belongs. */
static Spelling *find_spelling(const char *text, Py_ssize_t size)
{
    unsigned slot = hash_of(text, size);
    for (;; slot++) {
        Spelling *found = &spellings[slot & (SLOTS - 1)];
        if (found->spelling == NULL || (PyBytes_GET_SIZE(found->spelling) == size &&
                                        memcmp(PyBytes_AS_STRING(found->spelling), text, size) == 0))
            return found;
    }
}

/* --- shapes: the names of a message's headers, shared by all messages that have the same ---------------------------------- */

#define SHAPES 1024 /* a power of two */
typedef struct { PyObject *names, *shape; } Shape;
static Shape shapes[SHAPES];
static PyObject *shape_of; /* of a tuple of names */

static int same(PyObject *a, PyObject *b)
{
    return a == b || (PyBytes_GET_SIZE(a) == PyBytes_GET_SIZE(b) &&
                      memcmp(PyBytes_AS_STRING(a), PyBytes_AS_STRING(b), PyBytes_GET_SIZE(a)) == 0);
}

/* Two that fall into one place take turns there. */
static PyObject *find_shape(PyObject **names, int count)
{
    unsigned hash = count;
    int n = 0;
    for (; n < count; n++)
        hash = (hash ^ (unsigned)PyObject_Hash(names[n])) * 16777619u;
    Shape *place = &shapes[(hash ^ hash >> 15) & (SHAPES - 1)];
    if (place->names != NULL && PyTuple_GET_SIZE(place->names) == count) {
        for (n = 0; n < count && same(PyTuple_GET_ITEM(place->names, n), names[n]); n++)
            ;
        if (n == count)
            return Py_NewRef(place->shape);
    }
    PyObject *all = PyTuple_New(count);
    if (all == NULL)
        return NULL;
    for (n = 0; n < count; n++)
        PyTuple_SET_ITEM(all, n, Py_NewRef(names[n]));
    PyObject *shape = PyObject_CallOneArg(shape_of, all);
    if (shape == NULL) {
        Py_DECREF(all);
        return NULL;
    }
    Py_XSETREF(place->names, all);
    Py_XSETREF(place->shape, Py_NewRef(shape));
    return shape;
}

/* --- methods and transports: words that thousands of messages share ------------------------------------------------------ */

#define WORDS 32
static PyObject *words[WORDS];
static int word_count;
static PyObject *empty;

static PyObject *word(Text text)
{
    for (int n = 0; n < word_count; n++)
        if (PyBytes_GET_SIZE(words[n]) == text.size && memcmp(PyBytes_AS_STRING(words[n]), text.at, text.size) == 0)
            return Py_NewRef(words[n]);
    return PyBytes_FromStringAndSize(text.at, text.size);
}

static PyObject *octets(Text text)
{
    return text.size ? PyBytes_FromStringAndSize(text.at, text.size) : Py_NewRef(empty);
}

static PyObject *octets_or_none(Text text)
{
    return text.at == NULL ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize(text.at, text.size);
}

static PyObject *port_or_none(long port)
{
    return port ? PyLong_FromLong(port) : Py_NewRef(Py_None);
}

/* --- the scanner --------------------------------------------------------------------------------------------------------- */

#define MOST_LINES 100
#define MOST_HEAD 8192
#define MOST_URI 2048

typedef struct {
    int response, core; /* bits of the kinds that have been seen */
    Text method, uri, reason, call_id, cseq_method, from_tag, to_tag, body;
    Address target;
    Via via;
    long status, cseq, length, hops;
    Py_ssize_t via_at, via_end; /* of a response that can be kept in one piece; 0 of any other */
} Found;

static int start_line(Cursor *c, Found *f)
{
    if (TAKE(c, "SIP/")) {
        f->response = 1;
        if (!TAKE(c, "2.0 ") || c->end - c->at < 3 || *c->at < '1' || *c->at > '6')
            return 0;
        const char *from = c->at;
        if (!number(c, 3, &f->status) || c->at - from != 3)
            return 0;
        f->reason.at = c->at;
        f->reason.size = 0;
        if (c->at < c->end) {
            if (*c->at++ != ' ')
                return 0;
            f->reason.at = c->at;
            f->reason.size = c->end - c->at;
        }
        return 1;
    }
    if (c->end - c->at > MOST_URI)
        return 0;
    f->method.at = c->at;
    if (!skip(c, TOKEN))
        return 0;
    f->method.size = c->at - f->method.at;
    if (!TAKE(c, " "))
        return 0;
    f->uri.at = c->at;
    if (!sip_uri(c, &f->target))
        return 0;
    f->uri.size = c->at - f->uri.at;
    return TAKE(c, " SIP/2.0") && c->at == c->end;
}

/* One line that every message is judged by; `c` stands behind its colon. */
static int core_line(Cursor *c, int kind, Found *f)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t'))
        c->at++;
    switch (kind) {
    case VIA:
        return top_via(c, &f->via);
    case FROM:
        return tagged(c, &f->from_tag);
    case TO:
        return tagged(c, &f->to_tag);
    case CALL_ID:
        f->call_id.at = c->at;
        f->call_id.size = c->end - c->at;
        for (; c->at < c->end; c->at++)
            if (*c->at < '!' || *c->at > '~')
                return 0;
        return f->call_id.size > 0;
    case CSEQ:
        if (!number(c, 9, &f->cseq) || !TAKE(c, " "))
            return 0;
        f->cseq_method.at = c->at;
        if (!skip(c, TOKEN))
            return 0;
        f->cseq_method.size = c->at - f->cseq_method.at;
        return c->at == c->end;
    case LENGTH:
        return number(c, 5, &f->length) && c->at == c->end;
    case HOPS:
        return number(c, 3, &f->hops) && c->at == c->end && f->hops <= 255;
    }
    return 1;
}

/* What a line of a known name says; 0 where it is not of the usual kind. Only Via may come twice, and its first counts. */
static int note(int kind, const char *value, const char *end, Found *f)
{
    Cursor c = {value, end};
    if (kind == OTHER || (kind == HOPS && f->response))
        return 1;
    if (f->core >> kind & 1)
        return kind == VIA;
    f->core |= 1 << kind;
    return core_line(&c, kind, f);
}

/* The lines of the head into `names` and `lines`. 1 done, 0 not of the usual kind, -1 an exception is set. */
static int head_lines(const char *at, const char *end, Found *f, PyObject **names, Text *lines, int *count)
{
    while (at < end) {
        const char *stop = memchr(at, '\r', end - at);
        if (stop == NULL)
            stop = end;
        else if (stop[1] != '\n')
            return 0;
        if (*at == ' ' || *at == '\t' || stop == at || *count == MOST_LINES || memchr(at, '\n', stop - at) != NULL)
            return 0;
        const char *colon = memchr(at, ':', stop - at);
        if (colon == NULL)
            return 0;
        Spelling *found = find_spelling(at, colon - at);
        PyObject *name = found->name;
        if (name != NULL) {
            if (!note(found->kind, colon + 1, stop, f))
                return 0;
            Py_INCREF(name);
        } else {
            PyObject *line = PyBytes_FromStringAndSize(at, stop - at);
            name = line == NULL ? NULL : PyObject_CallOneArg(read_name, line);
            Py_XDECREF(line);
            if (name == NULL || !PyBytes_Check(name) || kind_of(name) != OTHER) {
                if (name == NULL && (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError)))
                    return -1;
                Py_XDECREF(name);
                PyErr_Clear(); /* malformed, or an unusual spelling: the twin says what to make of it */
                return 0;
            }
        }
        names[*count] = name;
        lines[*count] = (Text){at, stop - at};
        (*count)++;
        at = stop < end ? stop + 2 : end;
    }
    return 1;
}

static PyObject *list_of(const Text *items, int count)
{
    PyObject *list = PyList_New(count);
    for (int n = 0; list != NULL && n < count; n++) {
        PyObject *item = PyBytes_FromStringAndSize(items[n].at, items[n].size);
        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, n, item);
    }
    return list;
}

/* A tuple that takes over the references of its items; NULL when one of them is. */
static PyObject *tuple_of(PyObject **items, int count)
{
    PyObject *tuple = PyTuple_New(count);
    int whole = tuple != NULL;
    for (int n = 0; n < count; n++) {
        whole &= items[n] != NULL;
        if (tuple != NULL)
            PyTuple_SET_ITEM(tuple, n, items[n]);
        else
            Py_XDECREF(items[n]);
    }
    if (!whole)
        Py_CLEAR(tuple);
    return tuple;
}

static PyObject *result(const Found *f, PyObject *data, PyObject **names, const Text *lines, int count)
{
    PyObject *items[20];
    int n = 0;
    if (f->response) {
        items[n++] = PyLong_FromLong(f->status);
        items[n++] = octets(f->reason);
        items[n++] = word(f->cseq_method);
        items[n++] = PyLong_FromSsize_t(f->via_at);
        items[n++] = PyLong_FromSsize_t(f->via_end);
    } else {
        items[n++] = word(f->method);
        items[n++] = octets(f->uri);
        items[n++] = PyBool_FromLong(f->target.secure);
        items[n++] = octets(f->target.user);
        items[n++] = octets(f->target.host);
        items[n++] = port_or_none(f->target.port);
        items[n++] = octets(f->target.params);
        items[n++] = PyLong_FromLong(f->hops);
    }
    items[n++] = find_shape(names, count);
    items[n++] = f->via_end ? Py_NewRef(Py_None) : list_of(lines, count);
    items[n++] = f->via_end ? Py_NewRef(data) : octets(f->body);
    items[n++] = word(f->via.transport);
    items[n++] = octets(f->via.host);
    items[n++] = port_or_none(f->via.port);
    items[n++] = octets(f->via.branch);
    items[n++] = octets(f->via.tail);
    items[n++] = octets_or_none(f->from_tag);
    items[n++] = octets_or_none(f->to_tag);
    items[n++] = octets(f->call_id);
    items[n++] = PyLong_FromLong(f->cseq);
    return tuple_of(items, n);
}

static const char *end_of_head(const char *at, const char *end)
{
    while ((at = memchr(at, '\r', end - at)) != NULL) {
        if (end - at < 4)
            return NULL;
        if (memcmp(at, "\r\n\r\n", 4) == 0)
            return at;
        at++;
    }
    return NULL;
}

/* Whether a response can go on as it came but for its first line, which is the top Via and nothing else: nothing follows
 * the body, and the status line is as we write it. */
static int can_stay_whole(const Found *f, const char *end, PyObject *name, Text line)
{
    return f->body.at + f->length == end && f->reason.at[-1] == ' ' && kind_of(name) == VIA &&
           memchr(line.at, ',', line.size) == NULL;
}

PyDoc_STRVAR(scan_doc, "The parts of a message of the usual kind, None for any other; see `sip.parser`.");

static PyObject *scan(PyObject *module, PyObject *data)
{
    if (!PyBytes_Check(data) || read_name == NULL) {
        PyErr_SetString(PyExc_TypeError, read_name == NULL ? "prepare() comes first" : "bytes are needed");
        return NULL;
    }
    const char *from = PyBytes_AS_STRING(data), *end = from + PyBytes_GET_SIZE(data);
    const char *head = end_of_head(from, end);
    if (head == NULL || head - from > MOST_HEAD || memchr(from, 0, head - from) != NULL)
        Py_RETURN_NONE;
    Found f;
    memset(&f, 0, sizeof f);
    const char *first = memchr(from, '\r', head - from);
    if (first == NULL || first[1] != '\n' || memchr(from, '\n', first - from) != NULL)
        Py_RETURN_NONE;
    Cursor c = {from, first};
    if (!start_line(&c, &f))
        Py_RETURN_NONE;
    PyObject *names[MOST_LINES], *found = NULL;
    Text lines[MOST_LINES];
    int count = 0, done = head_lines(first + 2, head, &f, names, lines, &count);
    int wanted = f.response ? CORE : CORE | 1 << HOPS;
    f.body.at = head + 4;
    if (done > 0 && (f.core & wanted) == wanted && f.length <= end - f.body.at &&
        (f.response || (f.method.size == f.cseq_method.size && memcmp(f.method.at, f.cseq_method.at, f.method.size) == 0))) {
        f.body.size = f.length;
        if (f.response && can_stay_whole(&f, end, names[0], lines[0])) {
            f.via_at = lines[0].at - from;
            f.via_end = lines[1].at - from;
        }
        found = result(&f, data, names, lines, count);
    } else if (done >= 0)
        found = Py_NewRef(Py_None);
    for (int n = 0; n < count; n++)
        Py_DECREF(names[n]);
    return found;
}

PyDoc_STRVAR(prepare_doc,
             "prepare(spellings, words, read_name, shape_of): the table of header names, octets worth sharing, what reads "
             "the name of a line that is not in the table, and what makes the shape of a tuple of names.");

static PyObject *prepare(PyObject *module, PyObject *arguments)
{
    PyObject *table, *shared, *reader, *shaper, *spelling, *name;
    Py_ssize_t position = 0;
    if (!PyArg_ParseTuple(arguments, "O!O!OO:prepare", &PyDict_Type, &table, &PyTuple_Type, &shared, &reader, &shaper))
        return NULL;
    if (PyTuple_GET_SIZE(shared) > WORDS) {
        PyErr_SetString(PyExc_ValueError, "too many words");
        return NULL;
    }
    while (PyDict_Next(table, &position, &spelling, &name)) {
        if (!PyBytes_Check(spelling) || !PyBytes_Check(name)) {
            PyErr_SetString(PyExc_TypeError, "names are bytes");
            return NULL;
        }
        Spelling *place = find_spelling(PyBytes_AS_STRING(spelling), PyBytes_GET_SIZE(spelling));
        if (place->spelling != NULL)
            continue;
        if (spelling_count == SLOTS / 2) { /* a search ends at an empty place */
            PyErr_SetString(PyExc_ValueError, "too many names");
            return NULL;
        }
        *place = (Spelling){Py_NewRef(spelling), Py_NewRef(name), kind_of(name)};
        spelling_count++;
    }
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(shared); n++)
        if (!PyBytes_Check(PyTuple_GET_ITEM(shared, n))) {
            PyErr_SetString(PyExc_TypeError, "words are bytes");
            return NULL;
        }
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(shared) && read_name == NULL; n++)
        words[word_count++] = Py_NewRef(PyTuple_GET_ITEM(shared, n));
    Py_XSETREF(read_name, Py_NewRef(reader));
    Py_XSETREF(shape_of, Py_NewRef(shaper));
    Py_RETURN_NONE;
}

/* --- headers of Event Socket events (esl/codec.py) ------------------------------------------------------------------------ */

static int hex_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* A value, URL-decoded once; FreeSWITCH's word for empty is empty. */
static PyObject *esl_text(const char *at, Py_ssize_t size)
{
    static const char undefined[] = "_undef_";
    char small[512], *text = small;
    Py_ssize_t length = 0;
    if (memchr(at, '%', size) == NULL) {
        if (size == sizeof undefined - 1 && memcmp(at, undefined, size) == 0)
            size = 0;
        return PyUnicode_DecodeUTF8(at, size, "replace");
    }
    small[0] = 0;
    if (size > (Py_ssize_t)sizeof small && (text = PyMem_Malloc(size)) == NULL)
        return PyErr_NoMemory();
    for (Py_ssize_t n = 0; n < size; n++) {
        if (at[n] == '%' && n + 2 < size && hex_of(at[n + 1]) >= 0 && hex_of(at[n + 2]) >= 0) {
            text[length++] = (char)(hex_of(at[n + 1]) << 4 | hex_of(at[n + 2]));
            n += 2;
        } else
            text[length++] = at[n];
    }
    if (length == sizeof undefined - 1 && memcmp(text, undefined, length) == 0)
        length = 0;
    PyObject *found = PyUnicode_DecodeUTF8(text, length, "replace");
    if (text != small)
        PyMem_Free(text);
    return found;
}

/* Lines of an event, each with the line feed in front of it: `line` stands there, NULL behind the last one. A body follows
 * an empty line, but only where a line says how long it is. */
typedef struct { const char *block, *line, *end; int body; /* whether one may follow; -1: not looked for yet */ } Lines;

static int may_have_body(Lines *l)
{
    static const char length[] = "\nContent-Length: ";
    if (l->body < 0)
        l->body = memmem(l->block, l->end - l->block, length, sizeof length - 1) != NULL;
    return l->body;
}

static void next_line(Lines *l)
{
    const char *line = memchr(l->line + 1, '\n', l->end - l->line - 1);
    if (line != NULL && (line + 1 == l->end || (line[1] == '\n' && may_have_body(l))))
        line = NULL;
    l->line = line;
}

static Lines lines_of(PyObject *block)
{
    const char *at = PyBytes_AS_STRING(block);
    Lines l = {at, at, at + PyBytes_GET_SIZE(block), -1};
    if (l.end - at < 2)
        l.line = NULL;
    else if (at[1] == '\n') { /* nothing but a body: as behind any other line */
        l.line = at - 1;
        next_line(&l);
    }
    return l;
}

static PyObject *value_of(const Lines *l, Py_ssize_t size)
{
    const char *at = l->line + size, *stop = memchr(at, '\n', l->end - at);
    return esl_text(at, (stop == NULL ? l->end : stop) - at);
}

static int begins(const Lines *l, const char *needle, Py_ssize_t size)
{
    return l->end - l->line >= size && l->line[1] == needle[1] && memcmp(l->line, needle, size) == 0;
}

PyDoc_STRVAR(header_doc,
             "header(block, needle, default): the value of the first line that begins with `needle`, which begins with a line "
             "feed, as the block does; `default` where there is none.");

static PyObject *header(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_Check(arguments[0]) || !PyBytes_Check(arguments[1]) || PyBytes_GET_SIZE(arguments[1]) < 2) {
        PyErr_SetString(PyExc_TypeError, "header(bytes, bytes, default)");
        return NULL;
    }
    const char *needle = PyBytes_AS_STRING(arguments[1]);
    Py_ssize_t size = PyBytes_GET_SIZE(arguments[1]);
    for (Lines l = lines_of(arguments[0]); l.line != NULL; next_line(&l))
        if (begins(&l, needle, size))
            return value_of(&l, size);
    return Py_NewRef(arguments[2]);
}

PyDoc_STRVAR(identity_doc, "identity(block): Event-Name, Unique-ID, Core-UUID, Event-Sequence and Event-Subclass in one go, '' "
                           "where absent; the last one of CUSTOM events alone.");

static PyObject *identity(PyObject *module, PyObject *block)
{
    static const char *const needles[] = {"\nEvent-Name: ", "\nUnique-ID: ", "\nCore-UUID: ", "\nEvent-Sequence: ",
                                          "\nEvent-Subclass: "};
    PyObject *found[5] = {NULL};
    int left = 5;
    if (!PyBytes_Check(block)) {
        PyErr_SetString(PyExc_TypeError, "bytes are needed");
        return NULL;
    }
    for (Lines l = lines_of(block); l.line != NULL && left > 0; next_line(&l)) {
        if (l.line[1] != 'E' && l.line[1] != 'U' && l.line[1] != 'C')
            continue;
        for (int n = 0; n < 5; n++) {
            Py_ssize_t size = strlen(needles[n]);
            if (found[n] != NULL || !begins(&l, needles[n], size))
                continue;
            if ((found[n] = value_of(&l, size)) == NULL) {
                left = -1;
                break;
            }
            left--;
            if (n == 0 && found[4] == NULL && PyUnicode_CompareWithASCIIString(found[0], "CUSTOM") != 0) {
                found[4] = PyUnicode_New(0, 0); /* no use for one */
                left--;
            }
        }
    }
    if (left >= 0)
        for (int n = 0; n < 5; n++)
            if (found[n] == NULL)
                found[n] = PyUnicode_New(0, 0);
    return tuple_of(found, 5);
}

PyDoc_STRVAR(events_doc,
             "events(data, position): the bodies of the complete text/event-plain frames that stand there one after the other, "
             "each with the line feed in front of it, and where the next frame begins.");

static PyObject *events(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    static const char length[] = "Content-Length: ", type[] = "\nContent-Type: text/event-plain\n\n";
    if (count != 2 || !PyBytes_Check(arguments[0]) || !PyLong_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "events(bytes, int)");
        return NULL;
    }
    const char *from = PyBytes_AS_STRING(arguments[0]), *end = from + PyBytes_GET_SIZE(arguments[0]);
    Py_ssize_t position = PyLong_AsSsize_t(arguments[1]);
    if (position < 0 || position > end - from) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_IndexError, "no such place");
        return NULL;
    }
    PyObject *found = PyList_New(0);
    Cursor c = {from + position, end};
    long size;
    while (found != NULL && TAKE(&c, length) && number(&c, 7, &size) && TAKE(&c, type) && end - c.at >= size) {
        PyObject *block = PyBytes_FromStringAndSize(c.at - 1, size + 1);
        if (block == NULL || PyList_Append(found, block) < 0)
            Py_CLEAR(found);
        Py_XDECREF(block);
        c.at += size;
        position = c.at - from;
    }
    return found == NULL ? NULL : Py_BuildValue("(Nn)", found, position);
}

/* --- batches of datagrams ------------------------------------------------------------------------------------------------ */

#ifdef __linux__

/* A *place* is a peer in octets: port (2), address (4 or 16), with IPv6 the scope (4), in the order of the network; and
 * behind it, where a socket is bound to all addresses, ours that was asked or is to be sent from (4 or 16). */
enum { PLACE4 = 6, PLACE6 = 22, LONGEST_PLACE = 38 };

#define MOST 16
#define LARGEST 65535
#define TOLD 128

static char buffers[MOST][LARGEST + 1];

typedef union {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
} Name;

typedef union {
    char octets[TOLD];
    struct cmsghdr aligned;
} Told;

static Py_ssize_t write_place(char *place, const Name *name, struct msghdr *head)
{
    Py_ssize_t size = 0;
    if (name->any.sa_family == AF_INET) {
        memcpy(place, &name->four.sin_port, 2);
        memcpy(place + 2, &name->four.sin_addr, 4);
        size = PLACE4;
    } else if (name->any.sa_family == AF_INET6) {
        unsigned scope = htonl(name->six.sin6_scope_id);
        memcpy(place, &name->six.sin6_port, 2);
        memcpy(place + 2, &name->six.sin6_addr, 16);
        memcpy(place + 18, &scope, 4);
        size = PLACE6;
    }
    for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c != NULL; c = CMSG_NXTHDR(head, c)) {
        if (size == PLACE4 && c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            memcpy(place + size, &((struct in_pktinfo *)CMSG_DATA(c))->ipi_spec_dst, 4);
            return size + 4;
        }
        if (size == PLACE6 && c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            memcpy(place + size, &((struct in6_pktinfo *)CMSG_DATA(c))->ipi6_addr, 16);
            return size + 16;
        }
    }
    return size;
}

static double stamp_of(struct msghdr *head)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c != NULL; c = CMSG_NXTHDR(head, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec at;
            memcpy(&at, CMSG_DATA(c), sizeof at);
            return at.tv_sec + at.tv_nsec * 1e-9;
        }
    return 0.0;
}

PyDoc_STRVAR(receive_doc,
             "receive(descriptor, told, hops, meet): what is there, up to 16 datagrams as (octets, hop), and when the first "
             "one came in seconds since 1970, 0.0 where that is not known. `hops` has the hop of each place that is known, "
             "`meet(place)` gives it for others. `told`: the kernel tells which address of ours each was sent to. Never "
             "waits. Raises OSError, and what `meet` raises.");

/* A datagram and its hop; NULL with an exception. */
static PyObject *taken(const char *octets, Py_ssize_t length, const char *place, Py_ssize_t size, PyObject *hops,
                       PyObject *meet)
{
    PyObject *key = PyBytes_FromStringAndSize(place, size);
    if (key == NULL)
        return NULL;
    PyObject *hop = Py_XNewRef(PyDict_GetItemWithError(hops, key));
    if (hop == NULL && !PyErr_Occurred())
        hop = PyObject_CallOneArg(meet, key);
    Py_DECREF(key);
    PyObject *data = hop == NULL ? NULL : PyBytes_FromStringAndSize(octets, length);
    PyObject *pair = data == NULL ? NULL : PyTuple_Pack(2, data, hop);
    Py_XDECREF(data);
    Py_XDECREF(hop);
    return pair;
}

static PyObject *receive(PyObject *module, PyObject *arguments)
{
    int descriptor, told;
    PyObject *hops, *meet;
    if (!PyArg_ParseTuple(arguments, "ipO!O:receive", &descriptor, &told, &PyDict_Type, &hops, &meet))
        return NULL;
    struct mmsghdr heads[MOST];
    struct iovec parts[MOST];
    Name names[MOST];
    Told tellings[MOST];
    memset(heads, 0, sizeof heads);
    for (int n = 0; n < MOST; n++) {
        struct msghdr *head = &heads[n].msg_hdr;
        parts[n] = (struct iovec){buffers[n], LARGEST};
        head->msg_iov = &parts[n];
        head->msg_iovlen = 1;
        head->msg_name = &names[n];
        head->msg_namelen = sizeof names[n];
        if (told || n == 0) {
            head->msg_control = tellings[n].octets;
            head->msg_controllen = TOLD;
        }
    }
    int count = recvmmsg(descriptor, heads, MOST, MSG_DONTWAIT, NULL);
    if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (count < 0)
        count = 0;
    PyObject *found = PyList_New(count);
    for (int n = 0; found != NULL && n < count; n++) {
        char place[LONGEST_PLACE];
        Py_ssize_t size = write_place(place, &names[n], &heads[n].msg_hdr);
        PyObject *pair = taken(buffers[n], heads[n].msg_len, place, size, hops, meet);
        if (pair == NULL)
            Py_CLEAR(found);
        else
            PyList_SET_ITEM(found, n, pair);
    }
    return found == NULL ? NULL : Py_BuildValue("(dN)", count ? stamp_of(&heads[0].msg_hdr) : 0.0, found);
}

/* Where one datagram goes and what it is sent from; 0 where the place is none. */
static int read_place(PyObject *octets_of_place, Name *name, Told *told, struct msghdr *head)
{
    const char *place = PyBytes_AS_STRING(octets_of_place);
    Py_ssize_t size = PyBytes_GET_SIZE(octets_of_place);
    int six = size == PLACE6 || size == PLACE6 + 16;
    if (!six && size != PLACE4 && size != PLACE4 + 4)
        return 0;
    memset(name, 0, sizeof *name);
    head->msg_name = name;
    struct cmsghdr *c = &told->aligned;
    memset(told, 0, sizeof *told);
    if (six) {
        unsigned scope;
        name->six.sin6_family = AF_INET6;
        memcpy(&name->six.sin6_port, place, 2);
        memcpy(&name->six.sin6_addr, place + 2, 16);
        memcpy(&scope, place + 18, 4);
        name->six.sin6_scope_id = ntohl(scope);
        head->msg_namelen = sizeof name->six;
        if (size > PLACE6) {
            c->cmsg_level = IPPROTO_IPV6;
            c->cmsg_type = IPV6_PKTINFO;
            c->cmsg_len = CMSG_LEN(sizeof(struct in6_pktinfo));
            memcpy(&((struct in6_pktinfo *)CMSG_DATA(c))->ipi6_addr, place + PLACE6, 16);
            head->msg_control = told->octets;
            head->msg_controllen = CMSG_SPACE(sizeof(struct in6_pktinfo));
        }
    } else {
        name->four.sin_family = AF_INET;
        memcpy(&name->four.sin_port, place, 2);
        memcpy(&name->four.sin_addr, place + 2, 4);
        head->msg_namelen = sizeof name->four;
        if (size > PLACE4) {
            c->cmsg_level = IPPROTO_IP;
            c->cmsg_type = IP_PKTINFO;
            c->cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo));
            memcpy(&((struct in_pktinfo *)CMSG_DATA(c))->ipi_spec_dst, place + PLACE4, 4);
            head->msg_control = told->octets;
            head->msg_controllen = CMSG_SPACE(sizeof(struct in_pktinfo));
        }
    }
    return 1;
}

PyDoc_STRVAR(send_doc,
             "send(descriptor, datagrams, places, first): send datagrams from this index on, each to its place, up to 16; "
             "returns how many. Never waits. Raises OSError when the first one cannot be sent.");

static PyObject *send_batch(PyObject *module, PyObject *arguments)
{
    int descriptor;
    Py_ssize_t first;
    PyObject *datagrams, *places;
    if (!PyArg_ParseTuple(arguments, "iO!O!n:send", &descriptor, &PyList_Type, &datagrams, &PyList_Type, &places, &first))
        return NULL;
    struct mmsghdr heads[MOST];
    struct iovec parts[MOST];
    Name names[MOST];
    Told tellings[MOST];
    memset(heads, 0, sizeof heads);
    Py_ssize_t count = PyList_GET_SIZE(datagrams) - first;
    if (first < 0 || count < 1 || PyList_GET_SIZE(places) < first + count) {
        PyErr_SetString(PyExc_IndexError, "no such datagram");
        return NULL;
    }
    if (count > MOST)
        count = MOST;
    for (Py_ssize_t n = 0; n < count; n++) {
        struct msghdr *head = &heads[n].msg_hdr;
        PyObject *data = PyList_GET_ITEM(datagrams, first + n), *place = PyList_GET_ITEM(places, first + n);
        if (!PyBytes_Check(data) || !PyBytes_Check(place) || !read_place(place, &names[n], &tellings[n], head)) {
            PyErr_SetString(PyExc_TypeError, "a datagram and a place are bytes");
            return NULL;
        }
        parts[n] = (struct iovec){PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)};
        head->msg_iov = &parts[n];
        head->msg_iovlen = 1;
    }
    int sent = sendmmsg(descriptor, heads, count, MSG_DONTWAIT);
    return sent < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(sent);
}

#endif

/* --- the history of calls ------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(call_id_doc,
             "call_id(message)\n--\n\n"
             "The value of Call-ID where the header spells it as most do; None otherwise (kept_call.usual_call_id).");

static PyObject *call_id(PyObject *module, PyObject *message)
{
    static const char name[] = "\r\nCall-ID: ";
    const Py_ssize_t size = sizeof(name) - 1;
    if (!PyBytes_Check(message)) {
        PyErr_SetString(PyExc_TypeError, "bytes are expected");
        return NULL;
    }
    const char *at = PyBytes_AS_STRING(message), *end = at + PyBytes_GET_SIZE(message);
    for (; end - at > size && (at = memchr(at, '\r', end - at - size)) != NULL; at++) {
        if (memcmp(at, "\r\n\r\n", 4) == 0)
            break;
        if (memcmp(at, name, size) != 0)
            continue;
        const char *last = at += size;
        while ((last = memchr(last, '\r', end - last)) != NULL && (last + 1 == end || last[1] != '\n'))
            last++;
        if (last == NULL)
            break;
        while (at < last && Py_ISSPACE(*at))
            at++;
        while (at < last && Py_ISSPACE(last[-1]))
            last--;
        return PyBytes_FromStringAndSize(at, last - at);
    }
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"scan", scan, METH_O, scan_doc},
    {"prepare", prepare, METH_VARARGS, prepare_doc},
    {"header", (PyCFunction)(void (*)(void))header, METH_FASTCALL, header_doc},
    {"identity", identity, METH_O, identity_doc},
    {"events", (PyCFunction)(void (*)(void))events, METH_FASTCALL, events_doc},
    {"call_id", call_id, METH_O, call_id_doc},
#ifdef __linux__
    {"receive", receive, METH_VARARGS, receive_doc},
    {"send", send_batch, METH_VARARGS, send_doc},
#endif
    {NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "orchestrator._fast", NULL, -1, functions};

PyMODINIT_FUNC PyInit__fast(void)
{
    fill_classes();
    empty = PyBytes_FromStringAndSize(NULL, 0);
    return empty == NULL ? NULL : PyModule_Create(&module);
}
