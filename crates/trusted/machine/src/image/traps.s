// The first and last instructions of every exception and interrupt.
//
// Interrupts: nothing is done but to note the vector in a bitmap and to tell the local APIC. No
// Rust code runs, no vector register is touched, and three general registers are saved on the
// interrupt stack; the interrupted code's red zone is safe, because every gate has a stack of its
// own (IST). Interrupts are off in here and cannot nest.
//
// Exceptions: the registers are pushed for the crash report, which does not return.

.section .text.fata_traps, "ax", @progbits
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

// Vectors 0 to 31. Those without an error code get a zero in its place.
.balign 16
.global fata_exception_stubs
fata_exception_stubs:
.set fata_vector, 0
.rept 32
    .balign 16
    .if (fata_vector == 8) || ((fata_vector >= 10) && (fata_vector <= 14)) || (fata_vector == 17) || (fata_vector == 21) || (fata_vector == 29) || (fata_vector == 30)
    .else
        push 0
    .endif
    push fata_vector
    jmp fata_exception
    .set fata_vector, fata_vector + 1
.endr

fata_exception:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    cld
    call {exception}
    ud2
