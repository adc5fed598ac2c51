/* SPDX-License-Identifier: Apache-2.0 */
#include "afternorm.h"

/* Two registers of 32 bits make an address. */
static uint64_t read_address(const struct afternorm *device, uint32_t low, uint32_t high)
{
    return (uint64_t)afternorm_read(device, high) << 32 | afternorm_read(device, low);
}

/* Count a poll, and ask the hook whether to go on. */
static bool poll_again(uint32_t *polls, afternorm_poll_hook hook, void *context)
{
    if (*polls != 0 && --*polls == 0) {
        return false;
    }
    return hook == NULL || hook(context);
}

uint32_t afternorm_read(const struct afternorm *device, uint32_t offset)
{
    const uintptr_t address = device->base + offset;

    if (device->bus != NULL) {
        return device->bus->read32(device->bus->context, address);
    }
    return *(const volatile uint32_t *)address;
}

void afternorm_write(const struct afternorm *device, uint32_t offset, uint32_t value)
{
    const uintptr_t address = device->base + offset;

    if (device->bus != NULL) {
        device->bus->write32(device->bus->context, address, value);
    } else {
        *(volatile uint32_t *)address = value;
    }
}

int afternorm_init(struct afternorm *device, uintptr_t base, const struct afternorm_bus *bus)
{
    device->base = base;
    device->bus = bus;
    if (afternorm_read(device, AFTERNORM_BUILD_ID_OFFSET) != AFTERNORM_BUILD_ID) {
        return AFTERNORM_MISMATCH;
    }
    return AFTERNORM_OK;
}

enum afternorm_status afternorm_get_status(const struct afternorm *device)
{
    const uint32_t control = afternorm_read(device, AFTERNORM_CONTROL_OFFSET);
    const uint32_t status = afternorm_read(device, AFTERNORM_STATUS_OFFSET);

    /* A start waits for the end of a reset; until then STATUS tells of the program before. */
    if ((control & AFTERNORM_CONTROL_START_MASK) != 0) {
        return AFTERNORM_STATUS_RUNNING;
    }
    return (enum afternorm_status)((status & AFTERNORM_STATUS_STATE_MASK) >>
                                   AFTERNORM_STATUS_STATE_SHIFT);
}

int afternorm_start(const struct afternorm *device, uint64_t program)
{
    const uint32_t high = (uint32_t)(program >> 32);

    if (program % AFTERNORM_INSTRUCTION_BYTES != 0) {
        return AFTERNORM_ALIGNMENT;
    }
    if ((high & ~AFTERNORM_PROGRAM_HIGH_ADDRESS_MASK) != 0) {
        return AFTERNORM_RANGE;
    }
    switch (afternorm_get_status(device)) {
    case AFTERNORM_STATUS_RUNNING:
        return AFTERNORM_BUSY;
    case AFTERNORM_STATUS_ERROR:
    case AFTERNORM_STATUS_STOPPED:
        return AFTERNORM_UNUSABLE;
    case AFTERNORM_STATUS_IDLE:
    case AFTERNORM_STATUS_DONE:
        break;
    }
    afternorm_write(device, AFTERNORM_PROGRAM_LOW_OFFSET, (uint32_t)program);
    afternorm_write(device, AFTERNORM_PROGRAM_HIGH_OFFSET, high);
    afternorm_write(device, AFTERNORM_CONTROL_OFFSET, AFTERNORM_CONTROL_START_MASK);
    return AFTERNORM_OK;
}

int afternorm_wait(const struct afternorm *device, uint32_t polls, afternorm_poll_hook hook,
                   void *context)
{
    do {
        switch (afternorm_get_status(device)) {
        case AFTERNORM_STATUS_RUNNING:
            break;
        case AFTERNORM_STATUS_ERROR:
            return AFTERNORM_FAILED;
        case AFTERNORM_STATUS_STOPPED:
            return AFTERNORM_ABORTED;
        case AFTERNORM_STATUS_IDLE:
        case AFTERNORM_STATUS_DONE:
            return AFTERNORM_OK;
        }
    } while (poll_again(&polls, hook, context));
    return AFTERNORM_TIMEOUT;
}

void afternorm_stop(const struct afternorm *device)
{
    afternorm_write(device, AFTERNORM_CONTROL_OFFSET, AFTERNORM_CONTROL_STOP_MASK);
}

int afternorm_reset(const struct afternorm *device, uint32_t polls, afternorm_poll_hook hook,
                    void *context)
{
    afternorm_write(device, AFTERNORM_CONTROL_OFFSET, AFTERNORM_CONTROL_RESET_MASK);
    while ((afternorm_read(device, AFTERNORM_CONTROL_OFFSET) & AFTERNORM_CONTROL_RESET_MASK) !=
           0) {
        if (!poll_again(&polls, hook, context)) {
            return AFTERNORM_TIMEOUT;
        }
    }
    return AFTERNORM_OK;
}

void afternorm_get_error(const struct afternorm *device, struct afternorm_error_info *info)
{
    const uint32_t code = afternorm_read(device, AFTERNORM_ERROR_OFFSET);
    const uint32_t index = afternorm_read(device, AFTERNORM_ERROR_INDEX_OFFSET);

    info->code =
        (enum afternorm_error)((code & AFTERNORM_ERROR_CODE_MASK) >> AFTERNORM_ERROR_CODE_SHIFT);
    info->index = (index & AFTERNORM_ERROR_INDEX_INDEX_MASK) >> AFTERNORM_ERROR_INDEX_INDEX_SHIFT;
    info->address = read_address(device, AFTERNORM_ERROR_ADDRESS_LOW_OFFSET,
                                 AFTERNORM_ERROR_ADDRESS_HIGH_OFFSET);
}

void afternorm_get_counters(const struct afternorm *device, struct afternorm_counters *counters)
{
    uint32_t lost, engine, counter;

    counters->cycles = afternorm_read(device, AFTERNORM_CYCLES_OFFSET);
    counters->rows = afternorm_read(device, AFTERNORM_ROWS_OFFSET);
    counters->first_read = afternorm_read(device, AFTERNORM_FIRST_READ_OFFSET);
    counters->first_row = afternorm_read(device, AFTERNORM_FIRST_ROW_OFFSET);
    counters->last_row = afternorm_read(device, AFTERNORM_LAST_ROW_OFFSET);
    counters->last_result = afternorm_read(device, AFTERNORM_LAST_RESULT_OFFSET);
    for (lost = 0; lost < AFTERNORM_LOSTS; lost++) {
        counters->lost[lost] = afternorm_read(device, AFTERNORM_LOST_OFFSET(lost));
    }
    for (engine = 0; engine < AFTERNORM_ENGINES; engine++) {
        for (counter = 0; counter < AFTERNORM_COUNTERS; counter++) {
            counters->engine[engine][counter] =
                afternorm_read(device, AFTERNORM_COUNTER_OFFSET(engine, counter));
        }
    }
}

uint32_t afternorm_get_flags(const struct afternorm *device)
{
    return afternorm_read(device, AFTERNORM_FLAGS_OFFSET);
}

void afternorm_enable_interrupts(const struct afternorm *device, uint32_t mask)
{
    afternorm_write(device, AFTERNORM_IRQ_ENABLE_OFFSET, mask);
}

uint32_t afternorm_take_interrupts(const struct afternorm *device)
{
    const uint32_t causes = afternorm_read(device, AFTERNORM_IRQ_CAUSE_OFFSET);

    afternorm_write(device, AFTERNORM_IRQ_CAUSE_OFFSET, causes);
    return causes;
}

/* The switches have no default, so that a compiler tells of a code without a text. */

const char *afternorm_error_string(enum afternorm_error code)
{
    switch (code) {
    case AFTERNORM_ERROR_NONE:
        return "no error";
    case AFTERNORM_ERROR_OPCODE:
        return "unknown opcode";
    case AFTERNORM_ERROR_ADDRESS:
        return "address outside its memory";
    case AFTERNORM_ERROR_SEMAPHORE:
        return "no such semaphore, or its count overflowed";
    case AFTERNORM_ERROR_DEADLOCK:
        return "no progress: the program waits for itself";
    case AFTERNORM_ERROR_OPERAND:
        return "impossible count or selector";
    case AFTERNORM_ERROR_BUS:
        return "the memory answered with an error";
    }
    return "unknown error";
}

const char *afternorm_result_string(int result)
{
    switch ((enum afternorm_result)result) {
    case AFTERNORM_OK:
        return "done";
    case AFTERNORM_FAILED:
        return "the program stopped with an error";
    case AFTERNORM_ABORTED:
        return "the program was stopped";
    case AFTERNORM_TIMEOUT:
        return "timeout";
    case AFTERNORM_BUSY:
        return "a program runs";
    case AFTERNORM_UNUSABLE:
        return "reset needed";
    case AFTERNORM_ALIGNMENT:
        return "the program's address is not aligned";
    case AFTERNORM_RANGE:
        return "the program's address is too large";
    case AFTERNORM_MISMATCH:
        return "hardware and driver differ";
    }
    return "unknown result";
}
