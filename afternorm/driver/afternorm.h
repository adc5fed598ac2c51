/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver for the afternorm accelerator behind its AXI wrapper.  C99, freestanding: no heap, no
 * library, no state of its own but `struct afternorm`.
 *
 * Programs and data lie in the memory that the accelerator's AXI4 master reaches.  The caller puts
 * them there, and keeps caches coherent with it.
 */
#ifndef AFTERNORM_H
#define AFTERNORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "afternorm_registers.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Another way to the registers than loads and stores: a bridge, a link, a simulation. */
struct afternorm_bus {
    uint32_t (*read32)(void *context, uintptr_t address);
    void (*write32)(void *context, uintptr_t address, uint32_t value);
    void *context;
};

struct afternorm {
    uintptr_t base;
    const struct afternorm_bus *bus; /* NULL: registers are mapped into memory at `base` */
};

/* What functions return. */
enum afternorm_result {
    AFTERNORM_OK = 0,
    AFTERNORM_FAILED = -1,   /* the program stopped with an error, see afternorm_get_error */
    AFTERNORM_ABORTED = -2,  /* the program was stopped by the host */
    AFTERNORM_TIMEOUT = -3,  /* not done after as many polls as were allowed, or the hook gave up */
    AFTERNORM_BUSY = -4,     /* a program runs */
    AFTERNORM_UNUSABLE = -5, /* after an error or stop: call afternorm_reset */
    AFTERNORM_ALIGNMENT = -6, /* the program's address is no multiple of an instruction */
    AFTERNORM_RANGE = -7,    /* the program's address does not fit the register */
    AFTERNORM_MISMATCH = -8  /* the hardware is not what this driver was compiled for */
};

/* Called between two polls: to sleep, to yield, to feed a watchdog.  False gives up. */
typedef bool (*afternorm_poll_hook)(void *context);

/* How a program stopped. */
struct afternorm_error_info {
    enum afternorm_error code;
    uint32_t index;   /* of the instruction, from 0 */
    uint64_t address; /* of a bus error */
};

struct afternorm_counters {
    uint32_t cycles;      /* from start to the end */
    uint32_t rows;        /* of operand A that entered the arrays */
    uint32_t first_read;  /* cycle of the first operand read */
    uint32_t first_row;   /* cycle of the first row of A */
    uint32_t last_row;    /* cycle of the last row of A */
    uint32_t last_result; /* cycle of the last accumulator write */
    uint32_t lost[AFTERNORM_LOSTS]; /* idle slots of the array, by enum afternorm_lost */
    uint32_t engine[AFTERNORM_ENGINES][AFTERNORM_COUNTERS];
    /* by enum afternorm_engine and enum afternorm_counter */
};

/*
 * Take the accelerator whose registers begin at `base`; reached over `bus`, unless that is NULL.
 * AFTERNORM_MISMATCH if it has other sizes or comes from another version than this driver.
 */
int afternorm_init(struct afternorm *device, uintptr_t base, const struct afternorm_bus *bus);

/* A register, by AFTERNORM_..._OFFSET. */
uint32_t afternorm_read(const struct afternorm *device, uint32_t offset);
void afternorm_write(const struct afternorm *device, uint32_t offset, uint32_t value);

/*
 * Start the program at this address of the accelerator's memory, and return at once.  It is read
 * ahead of its turn: behind its END, as many instructions as the register CONFIG_FETCH_DEPTH says
 * must be memory, too, whatever they hold.
 */
int afternorm_start(const struct afternorm *device, uint64_t program);

/*
 * Wait for the end of the program, at most `polls` polls if that is not 0.  The hook may be NULL.
 * AFTERNORM_OK, AFTERNORM_FAILED, AFTERNORM_ABORTED or AFTERNORM_TIMEOUT.
 */
int afternorm_wait(const struct afternorm *device, uint32_t polls, afternorm_poll_hook hook,
                   void *context);

/* Begin no further instruction; afternorm_wait tells when what was begun is done. */
void afternorm_stop(const struct afternorm *device);

/* Reset everything but memories; polls and hook as those of afternorm_wait. */
int afternorm_reset(const struct afternorm *device, uint32_t polls, afternorm_poll_hook hook,
                    void *context);

enum afternorm_status afternorm_get_status(const struct afternorm *device);
void afternorm_get_error(const struct afternorm *device, struct afternorm_error_info *info);
void afternorm_get_counters(const struct afternorm *device, struct afternorm_counters *counters);

/* Sticky numeric flags of the last program: bits of enum afternorm_flag. */
uint32_t afternorm_get_flags(const struct afternorm *device);

/* Interrupts: AFTERNORM_IRQ_CAUSE_..._MASK.  Only the causes in `mask` interrupt from now on. */
void afternorm_enable_interrupts(const struct afternorm *device, uint32_t mask);

/* The causes that were pending; they are cleared. */
uint32_t afternorm_take_interrupts(const struct afternorm *device);

/* What an error's code, or a result, means; never NULL. */
const char *afternorm_error_string(enum afternorm_error code);
const char *afternorm_result_string(int result);

#ifdef __cplusplus
}
#endif

#endif
