// Puts a fixed text, the setting `prefix`, in front of every text that is embedded.
//
// Whose texts: that is for `models` in the gateway's configuration. Token ids stay as they came.

#include "preprocess.h"

#include <stdlib.h>
#include <string.h>

// Set once by `init`. The gateway takes its snapshot after that, so every instance begins with it.
static preprocess_string_t prefix;

static bool read_settings(preprocess_string_t json, preprocess_string_t *prefix);
static preprocess_string_t copy_of(preprocess_string_t text);

bool exports_embedgate_plugin_lifecycle_init(preprocess_string_t *settings, preprocess_string_t *err) {
    bool ok = read_settings(*settings, &prefix);
    // Arguments belong to the function that is called.
    preprocess_string_free(settings);
    if (!ok) {
        preprocess_string_dup(err, "the settings must be { prefix = \"TEXT\" }, TEXT not empty, and nothing else");
    }
    return ok;
}

bool exports_embedgate_plugin_preprocessor_preprocess(
    exports_embedgate_plugin_preprocessor_embed_request_t *request,
    exports_embedgate_plugin_preprocessor_principal_t *maybe_caller,
    exports_embedgate_plugin_preprocessor_outcome_t *ret,
    exports_embedgate_plugin_preprocessor_rejection_t *err) {
    (void)err;
    bool has_texts = request->inputs.tag == EMBEDGATE_PLUGIN_TYPES_INPUTS_TEXTS;
    exports_embedgate_plugin_preprocessor_embed_request_free(request);
    if (maybe_caller != NULL) {
        exports_embedgate_plugin_preprocessor_principal_free(maybe_caller);
    }
    memset(ret, 0, sizeof *ret);
    if (!has_texts) {
        ret->tag = EMBEDGATE_PLUGIN_TYPES_OUTCOME_UNCHANGED;
        return true;
    }
    ret->tag = EMBEDGATE_PLUGIN_TYPES_OUTCOME_EDITED;
    ret->val.edited.inputs.tag = EMBEDGATE_PLUGIN_TYPES_INPUT_EDIT_PREFIX;
    // A copy, because the generated code frees what is returned once the gateway has read it.
    ret->val.edited.inputs.val.prefix = copy_of(prefix);
    return true;
}

static preprocess_string_t copy_of(preprocess_string_t text) {
    preprocess_string_t copy = {malloc(text.len), text.len};
    if (copy.ptr == NULL) {
        abort();
    }
    memcpy(copy.ptr, text.ptr, text.len);
    return copy;
}

// What is left of a JSON text.
typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} reader_t;

static bool read_string(reader_t *in, preprocess_string_t *out);
static bool read_byte(reader_t *in, uint8_t byte);
static void skip_space(reader_t *in);

// Reads `{"prefix": "TEXT"}`. Returns false for anything else.
static bool read_settings(preprocess_string_t json, preprocess_string_t *prefix) {
    reader_t in = {json.ptr, json.ptr + json.len};
    preprocess_string_t key;
    if (!read_byte(&in, '{') || !read_string(&in, &key)) {
        return false;
    }
    bool known = key.len == 6 && memcmp(key.ptr, "prefix", 6) == 0;
    free(key.ptr);
    if (!known || !read_byte(&in, ':') || !read_string(&in, prefix)) {
        return false;
    }
    bool closed = read_byte(&in, '}');
    skip_space(&in);
    return closed && in.at == in.end && prefix->len > 0;
}

static bool read_escape(reader_t *in, uint8_t **out);

// Reads a string into new memory, which is the caller's to free where this returns true.
static bool read_string(reader_t *in, preprocess_string_t *out) {
    if (!read_byte(in, '"')) {
        return false;
    }
    // No escape is shorter than what it stands for in UTF-8: the rest of the text is room enough.
    uint8_t *bytes = malloc((size_t)(in->end - in->at) + 1);
    if (bytes == NULL) {
        abort();
    }
    uint8_t *next = bytes;
    while (in->at < in->end && *in->at != '"') {
        uint8_t byte = *in->at++;
        if (byte != '\\') {
            *next++ = byte;
        } else if (!read_escape(in, &next)) {
            free(bytes);
            return false;
        }
    }
    if (in->at == in->end || *in->at++ != '"') {
        free(bytes);
        return false;
    }
    *out = (preprocess_string_t){bytes, (size_t)(next - bytes)};
    return true;
}

static bool read_hex4(reader_t *in, uint32_t *out);

// Reads what follows a backslash. Halves of surrogate pairs are refused: the gateway writes such characters as they are.
static bool read_escape(reader_t *in, uint8_t **out) {
    static const char ESCAPES[] = "\"\\/bfnrt";
    static const char MEANINGS[] = "\"\\/\b\f\n\r\t";
    if (in->at == in->end) {
        return false;
    }
    uint8_t letter = *in->at++;
    const char *escape = letter == '\0' ? NULL : strchr(ESCAPES, letter);
    if (escape != NULL) {
        *(*out)++ = (uint8_t)MEANINGS[escape - ESCAPES];
        return true;
    }
    uint32_t code;
    if (letter != 'u' || !read_hex4(in, &code) || (code >= 0xd800 && code <= 0xdfff)) {
        return false;
    }
    if (code < 0x80) {
        *(*out)++ = (uint8_t)code;
    } else if (code < 0x800) {
        *(*out)++ = (uint8_t)(0xc0 | code >> 6);
        *(*out)++ = (uint8_t)(0x80 | (code & 0x3f));
    } else {
        *(*out)++ = (uint8_t)(0xe0 | code >> 12);
        *(*out)++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        *(*out)++ = (uint8_t)(0x80 | (code & 0x3f));
    }
    return true;
}

static bool read_hex4(reader_t *in, uint32_t *out) {
    static const char DIGITS[] = "0123456789abcdef";
    *out = 0;
    for (int i = 0; i < 4; i++) {
        if (in->at == in->end) {
            return false;
        }
        uint8_t letter = *in->at++;
        if (letter >= 'A' && letter <= 'F') {
            letter += 'a' - 'A';
        }
        const char *digit = letter == '\0' ? NULL : strchr(DIGITS, letter);
        if (digit == NULL) {
            return false;
        }
        *out = *out << 4 | (uint32_t)(digit - DIGITS);
    }
    return true;
}

// Skips whitespace, then takes `byte` where it comes next.
static bool read_byte(reader_t *in, uint8_t byte) {
    skip_space(in);
    if (in->at == in->end || *in->at != byte) {
        return false;
    }
    in->at++;
    return true;
}

static void skip_space(reader_t *in) {
    while (in->at < in->end && memchr(" \t\r\n", *in->at, 4) != NULL) {
        in->at++;
    }
}
