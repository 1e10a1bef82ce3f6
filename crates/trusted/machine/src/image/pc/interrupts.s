// The first and last instructions of every interrupt.
//
// Nothing is done but to note the vector in a bitmap and to tell the local APIC. No
// Rust code runs, no vector register is touched, and three general registers are saved on the
// interrupt stack; the interrupted code's red zone is safe, because every gate has a stack of its
// own (IST). Interrupts are off in here and cannot nest.

.section .text.fata_interrupts, "ax", @progbits
.code64

// One stub of 16 bytes for each of the vectors 32 to 254.
.balign 16
.global fata_interrupt_stubs
fata_interrupt_stubs:
.set fata_vector, 32
.rept 223
    .balign 16
    push rax
    mov eax, fata_vector
    jmp fata_interrupt
    .set fata_vector, fata_vector + 1
.endr

fata_interrupt:
    push rcx
    push rdx
    lock bts qword ptr [{pending}], rax
    // End of interrupt: a write of 0 to the APIC's register 0xb0, in memory or as MSR 0x80b.
    mov rcx, qword ptr [{end_of_interrupt}]
    test rcx, rcx
    jz 2f
    mov dword ptr [rcx], 0
    jmp 3f
2:  mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
3:  pop rdx
    pop rcx
    pop rax
    iretq

// Vector 255: an interrupt that went away before it was delivered. No end is signalled for it.
.balign 16
.global fata_spurious_stub
fata_spurious_stub:
    iretq
